"""The three topics: checked at start, created by `loadonce topics create`."""

from collections.abc import Mapping
from dataclasses import dataclass

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import AuthorizationError, KafkaError, TopicAlreadyExistsError

from consumer.delivery.connection import TOPICS, admin
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named

# The broker's default for message.max.bytes, taken where the topic may not be asked for its own.
# Source: https://kafka.apache.org/documentation/#topicconfigs_max.message.bytes
DEFAULT_RECORD_LIMIT = 1_048_588

# What to do with each, and the right that it takes (org.apache.kafka.common.acl.AclOperation).
_RIGHTS = {
    "jobs_topic": ("read", "READ"),
    "predictions_topic": ("write to", "WRITE"),
    "dead_letters_topic": ("write to", "WRITE"),
}


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


def check_topics(settings: Settings, *, serving: bool = False) -> Topics:
    """The three topics as they are; FatalError (69) names the first that is missing, (77) that may not be seen or,
    where they are for `serving`, not read or written as that takes."""
    names = [getattr(settings, option) for option in TOPICS]
    with admin(settings) as client:
        described = {topic["name"]: topic for topic in client.describe_topics(names)}
        for option, name in zip(TOPICS, names, strict=True):
            error = described[name]["error_code"] if name in described else 3
            if error == 29:  # TOPIC_AUTHORIZATION_FAILED
                raise FatalError(Exit.REFUSED, f"{named(settings, option)}: the broker does not let this user see it")
            if error or not described[name]["partitions"]:
                raise FatalError(
                    Exit.UNAVAILABLE,
                    f"{named(settings, option)}: no such topic on the broker; `loadonce topics create` makes it",
                )
            if serving:
                _check_rights(settings, option, described[name].get("authorized_operations"))
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
        for option in TOPICS:
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


def _check_rights(settings: Settings, option: str, allowed: list[str] | None) -> None:
    """FatalError (77), by what the broker says of the user's rights with the topic; it may say nothing."""
    use, right = _RIGHTS[option]
    # Who sees a topic may describe it: a list without that is none.
    if allowed and "DESCRIBE" in allowed and right not in allowed:
        raise FatalError(
            Exit.REFUSED, f"{named(settings, option)}: this user may not {use} it; it needs {right} on this topic"
        )


def _record_limits(client: KafkaAdminClient, names: list[str]) -> Mapping[str, int]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, ["max.message.bytes"]) for name in names]
    try:
        found = client.describe_configs(resources, config_filter="all")["topic"]
    except KafkaError:
        return {}  # DescribeConfigs is a right of its own, and not needed to serve
    # Of a topic whose configuration may not be read it holds nothing.
    limits = {name: found.get(name, {}).get("max.message.bytes") for name in names}
    return {name: int(limit["value"]) for name, limit in limits.items() if limit}
