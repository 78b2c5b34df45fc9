"""What is seen of the models from outside, through the real endpoint: /readyz, /models, /metrics, /models/refresh."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from consumer.models.events import FailedStatus, Snapshot, VersionStatus
from consumer.models.opening import Opener
from consumer.models.runtime import Loaded
from consumer.observe import http
from consumer.observe.metrics import Metrics
from consumer.observe.status import Status
from consumer.observe.told import ModelsTold
from consumer.stop import Refresh
from schemas.reasons import Failure, Reason, Stage
from tests import models_zoo as zoo
from tests.serving import ask, serving, until

NOW = 100.0
BROKEN = Failure(Reason.MODEL_CORRUPT, Stage.LOAD, "the archive is cut off", 1)
STATE = Snapshot(
    models=(
        VersionStatus(
            "digits", 1, "digits/1/model.keras", "keras", 500, 0, current=False, pinned=False, aliases=("b",)
        ),
        VersionStatus("digits", 2, "digits/2/model.keras", "keras", 700, 3, current=True, pinned=True, aliases=("a",)),
    ),
    failed=(
        FailedStatus("digits", 3, BROKEN, permanent=True, retry_at=NOW + 7.25),
        FailedStatus("wine", 1, BROKEN, permanent=False, retry_at=None),
    ),
    loading=(("wine", 2),),
    waiting_for_room=(("iris", 1),),
    problems=("aliases.json is not JSON",),
    cache_bytes=1200,
)


@dataclass
class Endpoint:
    status: Status
    told: ModelsTold
    refresh: Refresh
    url: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


@contextmanager
def listening(host: str) -> Iterator[Endpoint]:
    status = Status(lambda: NOW, 300)
    status.snapshot = replace(status.snapshot, phase="running", turned=NOW, joined=True)
    metrics, refresh = Metrics(status), Refresh()
    with http.serving(status, metrics, refresh.ask, host, 0) as port:
        yield Endpoint(status, ModelsTold(status, metrics.models), refresh, f"http://127.0.0.1:{port}")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with listening("127.0.0.1") as found:
        yield found


def loaded(key: str, version: int) -> Loaded:
    """What a listener may read of a model; opening one is not this test's matter."""

    @dataclass
    class Opened:
        key: str
        version: int
        path_in_store: str = "somewhere"
        format: str = "keras"
        nbytes: int = 10
        load_seconds: float = 0.3

    return cast("Loaded", Opened(key, version))


def test_what_fails_beside_a_version_that_serves_degrades_and_does_not_stop(endpoint: Endpoint) -> None:
    assert endpoint.get("/readyz").json()["degraded"] == []
    endpoint.told.snapshot_taken(STATE)
    ready = endpoint.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["reasons"] == []
    assert ready.json()["degraded"] == [
        "model 'digits' version 3: model-corrupt: the archive is cut off; version 2 serves",
        "model 'wine' version 1: model-corrupt: the archive is cut off; no version serves",
    ]


def test_a_preloaded_model_of_which_no_version_serves_is_a_reason(endpoint: Endpoint) -> None:
    endpoint.told.snapshot_taken(replace(STATE, missing=("wine",)))
    ready = endpoint.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["model 'wine' is to be preloaded, and no version of it serves"]
    assert (
        "model 'wine' version 1: model-corrupt: the archive is cut off; no version serves" in ready.json()["degraded"]
    )
    assert endpoint.get("/livez").status_code == 200
    endpoint.told.snapshot_taken(STATE)
    assert endpoint.get("/readyz").status_code == 200


def test_a_version_that_cannot_be_loaded_is_in_readiness_metrics_and_log_with_its_reason(
    endpoint: Endpoint, opener: Opener, tmp_path: Path
) -> None:
    """The real thing: a store with a version that serves and a newer one that is torn."""
    folder = zoo.put(zoo.sequential(), tmp_path / "store", "pair", 1, "keras")
    zoo.publish(folder, tmp_path / "store", "pair", 2, torn=True)
    with capture_logs() as logged:
        models = serving(tmp_path / "store", opener, endpoint.told)
        try:
            assert getattr(ask(models, "pair"), "version", None) == 1
            until(models, lambda: any(one.current for one in endpoint.status.models.models))
        finally:
            models.close(30)
    [line] = [line for line in logged if line["event"] == "load failed"]
    assert (line["log_level"], line["model"], line["version"], line["reason"]) == ("error", "pair", 2, "model-corrupt")
    assert line["message"]
    [degraded] = endpoint.get("/readyz").json()["degraded"]
    assert degraded == f"model 'pair' version 2: model-corrupt: {line['message']}; version 1 serves"
    shown = endpoint.metrics()
    assert shown["loadonce_model_load_attempts_total", ("pair", "failed", "model-corrupt")] == 1
    assert shown["loadonce_model_failed_versions", ("pair", "model-corrupt")] == 1
    assert shown["loadonce_model_served_version", ("pair",)] == 1


def test_models_are_shown_by_name(endpoint: Endpoint) -> None:
    assert endpoint.get("/models").json()["models"] == {}
    endpoint.told.snapshot_taken(STATE)
    shown = endpoint.get("/models").json()
    digits, wine = shown["models"]["digits"], shown["models"]["wine"]
    assert (digits["current"], digits["aliases"]) == (2, {"a": 2, "b": 1})
    assert digits["versions"][1] == {
        "version": 2,
        "path": "digits/2/model.keras",
        "format": "keras",
        "bytes": 700,
        "in_use": 3,
        "pinned": True,
    }
    assert digits["failed"] == [
        {
            "version": 3,
            "reason": "model-corrupt",
            "message": "the archive is cut off",
            "attempts": 1,
            "permanent": True,
            "retry_in_s": 7.2,
        }
    ]
    assert (wine["current"], wine["failed"][0]["retry_in_s"]) == (None, None)
    assert shown["loading"] == [{"model": "wine", "version": 2}]
    assert shown["waiting_for_room"] == [{"model": "iris", "version": 1}]
    assert (shown["cache_bytes"], shown["store_problems"]) == (1200, ["aliases.json is not JSON"])


def test_states_are_those_of_the_newest_snapshot(endpoint: Endpoint) -> None:
    endpoint.told.snapshot_taken(STATE)
    shown = endpoint.metrics()
    assert shown["loadonce_cache_models", ()] == 2
    assert shown["loadonce_cache_bytes", ()] == 1200
    assert shown["loadonce_models_loading", ()] == 1
    assert shown["loadonce_models_waiting_for_room", ()] == 1
    assert shown["loadonce_store_problems", ()] == 1
    assert shown["loadonce_model_served_version", ("digits",)] == 2
    assert shown["loadonce_model_failed_versions", ("wine", "model-corrupt")] == 1
    endpoint.told.snapshot_taken(Snapshot())
    assert ("loadonce_model_served_version", ("digits",)) not in endpoint.metrics()


def test_events_are_counted(endpoint: Endpoint) -> None:
    told = endpoint.told
    told.load_attempt_failed("digits", 1, 1, "too many open files", 0.5)
    told.model_loaded(loaded("digits", 1))
    told.version_served(loaded("digits", 1), None)
    told.load_failed("digits", 2, BROKEN)
    told.load_abandoned("digits", 4, "the store has it no more")
    told.waiting_for_room("digits", 3, "all are in use")
    told.model_dropped(loaded("digits", 1), "evicted")
    told.store_looked(["digits"])
    shown = endpoint.metrics()
    attempts = {labels[1:]: count for (name, labels), count in shown.items() if name.endswith("load_attempts_total")}
    assert attempts == {
        ("retried", "model-unavailable"): 1,
        ("loaded", ""): 1,
        ("failed", "model-corrupt"): 1,
        ("abandoned", ""): 1,
    }
    assert shown["loadonce_model_load_seconds_count", ("keras",)] == 1
    assert shown["loadonce_model_load_seconds_sum", ("keras",)] == 0.3
    assert shown["loadonce_model_swaps_total", ("digits",)] == 1
    assert shown["loadonce_model_room_waits_total", ("digits",)] == 1
    assert shown["loadonce_model_drops_total", ("digits", "evicted")] == 1
    assert shown["loadonce_store_looks_total", ()] == 1


def test_what_comes_to_nothing_has_a_line(endpoint: Endpoint) -> None:
    with capture_logs() as logged:
        endpoint.told.load_abandoned("digits", 4, "the store has it no more")
        endpoint.told.none_served("digits", 3)
    assert [(line["event"], line["model"]) for line in logged] == [
        ("load abandoned", "digits"),
        ("none served", "digits"),
    ]
    assert (logged[0]["version"], logged[0]["why"]) == (4, "the store has it no more")
    assert logged[1]["version_before"] == 3


def test_the_series_of_a_model_go_with_it(endpoint: Endpoint) -> None:
    for number in range(3):
        endpoint.told.load_failed(f"model-{number}", 1, BROKEN)
    endpoint.told.store_looked({"model-1"})
    named = {labels[0] for _, labels in endpoint.metrics() if labels and labels[0].startswith("model-")}
    assert named == {"model-1"}


def test_openmetrics_is_spoken_to_who_asks(endpoint: Endpoint) -> None:
    given = httpx.get(endpoint.url + "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert given.headers["content-type"].startswith("application/openmetrics-text")
    assert given.text.endswith("# EOF\n")


def test_this_machine_may_ask_for_a_look_at_the_store(endpoint: Endpoint) -> None:
    assert httpx.get(endpoint.url + "/models/refresh").status_code == 405
    assert not endpoint.refresh.taken()
    answer = httpx.post(endpoint.url + "/models/refresh")
    assert (answer.status_code, answer.json()["ok"]) == (202, True)
    assert endpoint.refresh.taken()
    assert not endpoint.refresh.taken()


def test_no_other_may() -> None:
    with listening("0.0.0.0") as endpoint:
        # A proxy on this machine that speaks for another: the one peer that is not this machine and can be had here.
        answer = httpx.post(endpoint.url + "/models/refresh", headers={"x-forwarded-for": "192.0.2.7"})
        assert (answer.status_code, answer.json()["ok"]) == (403, False)
        assert not endpoint.refresh.taken()


def test_the_guide_has_every_metric() -> None:
    status = Status(lambda: NOW, 300)
    guide = Path("docs/guide.md").read_text("utf-8")
    table = dict(re.findall(r"^\| `(loadonce_\w+)` \| (?:.*?) \| (.*?) \|$", guide, re.MULTILINE))
    defined = {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation
        for family in Metrics(status).registry.collect()
    }
    assert table == defined
