"""The three topics: checked at start, created by `loadonce topics create`."""

from collections.abc import Mapping
from dataclasses import dataclass

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import AuthorizationError, KafkaError, TopicAlreadyExistsError

from consumer.delivery.connection import admin
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named

# The broker's default for message.max.bytes, taken where the topic may not be asked for its own.
# Source: https://kafka.apache.org/documentation/#topicconfigs_max.message.bytes
DEFAULT_RECORD_LIMIT = 1_048_588

_OPTIONS = ("jobs_topic", "predictions_topic", "dead_letters_topic")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker has it. `record_limit` is its max.message.bytes."""

    name: str
    partitions: int
    replication_factor: int
    record_limit: int


@dataclass(frozen=True, slots=True)
class Topics:
    """The three topics of a consumer."""

    jobs: Topic
    predictions: Topic
    dead_letters: Topic


def check_topics(settings: Settings) -> Topics:
    """The three topics as they are; FatalError (69) names the first that is missing, (77) where it may not be seen."""
    names = [getattr(settings, option) for option in _OPTIONS]
    with admin(settings) as client:
        described = {topic["name"]: topic for topic in client.describe_topics(names)}
        for option, name in zip(_OPTIONS, names, strict=True):
            error = described[name]["error_code"] if name in described else 3
            if error == 29:  # TOPIC_AUTHORIZATION_FAILED
                raise FatalError(Exit.REFUSED, f"{named(settings, option)}: the broker does not let this user see it")
            if error or not described[name]["partitions"]:
                raise FatalError(
                    Exit.UNAVAILABLE,
                    f"{named(settings, option)}: no such topic on the broker; `loadonce topics create` makes it",
                )
        limits = _record_limits(client, names)
    jobs, predictions, dead_letters = (
        Topic(
            name,
            partitions=len(described[name]["partitions"]),
            replication_factor=len(described[name]["partitions"][0]["replica_nodes"]),
            record_limit=limits.get(name, DEFAULT_RECORD_LIMIT),
        )
        for name in names
    )
    return Topics(jobs, predictions, dead_letters)


def create_topics(settings: Settings, *, partitions: int, replication_factor: int) -> list[str]:
    """Create those of the three topics that are missing; the names created. A factor of -1 is the broker's default."""
    created = []
    with admin(settings) as client:
        for option in _OPTIONS:
            name = getattr(settings, option)
            wanted = {"num_partitions": partitions, "replication_factor": replication_factor}
            try:
                client.create_topics({name: wanted}, timeout_ms=10_000, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue
            except AuthorizationError:
                raise FatalError(
                    Exit.REFUSED, f"{named(settings, option)}: the broker does not let this user create it"
                ) from None
            except KafkaError as error:
                raise FatalError(Exit.UNAVAILABLE, f"{named(settings, option)}: not created: {error}") from None
            created.append(name)
    return created


def _record_limits(client: KafkaAdminClient, names: list[str]) -> Mapping[str, int]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, ["max.message.bytes"]) for name in names]
    try:
        found = client.describe_configs(resources, config_filter="all")["topic"]
    except KafkaError:
        return {}  # DescribeConfigs is a right of its own, and not needed to serve
    return {name: int(found[name]["max.message.bytes"]["value"]) for name in names if name in found}
