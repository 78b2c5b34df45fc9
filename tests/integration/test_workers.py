"""`loadonce run --workers`: several processes, to whoever starts, asks and stops them one."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics
from tests.ledger import ANSWERS_S, Ledger, lag
from tests.replica import Replica, options, until

WORKERS = 2
BACK_S = 60.0
COMMAND = ("consumer", "run", "--workers", str(WORKERS))


class Supervised(Replica):
    """Workers and the process above them."""

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The endpoint of all is that of the process above."""
        return super().events("supervising" if name == "http listening" else name)

    def pids(self) -> list[int]:
        """Of the workers that run, whether or not the process above still does."""
        found = subprocess.run(["pgrep", "-f", "consumer run .*--line"], capture_output=True, text=True, check=False)
        group = f"LOADONCE_GROUP_ID={self.group}".encode()
        return [pid for pid in map(int, found.stdout.split()) if group in _environ(pid)]

    group = ""


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def workers(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> Iterator[Supervised]:
    given = options(kafka, topics, store, PRELOAD=stores.DOUBLE, COMMIT_INTERVAL_S=0.2, SESSION_TIMEOUT_S=6)
    supervised = Supervised(tmp_path / "workers.log", COMMAND, **given)
    supervised.group = topics.jobs
    yield supervised
    if supervised.process.poll() is None:
        supervised.stop()
    for pid in supervised.pids():
        os.kill(pid, signal.SIGKILL)


def partitions(workers: Supervised) -> list[list[int]]:
    """Of each worker that answers."""
    _, document = workers.get("/readyz")
    return [one["partitions"] for one in (document or {"workers": []})["workers"] if one]


def samples(workers: Supervised, name: str) -> dict[str, float]:
    """A metric's values by worker."""
    port = workers.events("http listening")[-1]["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_workers_share_the_jobs_and_one_that_dies_comes_back(
    kafka: LocalKafka, topics: Topics, workers: Supervised
) -> None:
    ledger = Ledger(kafka, topics)
    until(lambda: sorted(partitions(workers)) == [[0], [1]], BACK_S, "a partition for each")
    workers.wait_ready()
    ledger.publish(500)
    until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "answers")
    assert samples(workers, "loadonce_cache_models") == {"0": 1, "1": 1}
    assert samples(workers, "loadonce_worker_up") == {"0": 1, "1": 1}

    [victim, _] = workers.pids()
    os.kill(victim, signal.SIGKILL)
    ledger.publish(500)
    until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "answers")
    until(lambda: sum(samples(workers, "loadonce_worker_restarts_total").values()) == 1, BACK_S, "another in its place")
    until(lambda: sorted(partitions(workers)) == [[0], [1]], BACK_S, "a partition for each")
    assert [event["code"] for event in workers.events("worker ended")] == [-signal.SIGKILL]

    assert workers.stop() == 0
    assert workers.events("workers ended")[-1]["codes"] == [0, 0]
    assert workers.pids() == []
    assert lag(kafka, topics) == 0


def test_workers_end_when_the_process_above_them_is_gone(workers: Supervised) -> None:
    workers.wait_ready()
    assert len(workers.pids()) == WORKERS
    workers.kill()
    until(lambda: workers.pids() == [], BACK_S, "the end of both")


def test_what_no_worker_can_run_with_ends_them_all(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    supervised = Supervised(tmp_path / "workers.log", COMMAND, **options(kafka, topics, store, PRELOAD="nothing"))
    assert supervised.process.wait(BACK_S) == 78
    assert "worker" in (tmp_path / "workers.log").read_text().splitlines()[-1]


def test_each_worker_has_a_name_and_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from consumer.settings import load
    from consumer.workers.supervisor import _environ as environ_of

    monkeypatch.setenv("LOADONCE_INSTANCE_ID", "blue")
    monkeypatch.setenv("LOADONCE_WORKERS", "2")
    found = [environ_of(load(), number) for number in range(2)]
    assert [one["LOADONCE_INSTANCE_ID"] for one in found] == ["blue-0", "blue-1"]
    assert {one["LOADONCE_INTRA_OP_THREADS"] for one in found} == {str(max(1, (os.cpu_count() or 1) // 2))}
    assert {one["LOADONCE_WORKERS"] for one in found} == {"1"}


def test_the_option_is_bounded() -> None:
    command = [sys.executable, "-m", "consumer", "run", "--workers", "0"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 64
