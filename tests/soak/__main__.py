"""Jobs flow through three brokers and some replicas, all of which meet with accidents; then all must add up.

    python -m tests.soak --minutes 20 --seed 7 --delivery exactly-once

The seed decides which jobs are bad, what is done, to whom and when. Exit code 1 where a job is lost, answered wrongly
or, with exactly-once, twice; the logs are then kept.
"""

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from consumer.local import LocalKafka
from tests.conftest import Topics, create_topics
from tests.replica import options
from tests.soak.chaos import Chaos, good_versions
from tests.soak.fleet import Fleet
from tests.soak.jobs import MODELS
from tests.soak.ledger import Ledger, Problems
from tests.soak.report import Run, report
from tests.soak.topics import PARTITIONS, Publisher, Reader
from tests.soak.versions import Versions

REPLICAS = 3
SESSION_S = 10
TRANSACTION_S = 10
PROGRESS_S = 10.0
READY_S = 120.0
BACK_S = 150.0
SETTLE_S = 120.0
END_S = 60.0
BROKERS = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}


class Soak:
    """One run."""

    def __init__(self, arguments: argparse.Namespace, kafka: LocalKafka, folder: Path) -> None:
        self._arguments = arguments
        run = uuid.uuid4().hex[:8]
        topics = Topics(f"jobs-{run}", f"predictions-{run}", f"dead-letters-{run}")
        create_topics(kafka, *astuple(topics), partitions=PARTITIONS)
        self._versions = Versions(folder, good_versions(arguments.seed, arguments.minutes))
        self._ledger = Ledger(arguments.seed, exactly_once=arguments.delivery == "exactly-once")
        self._reader = Reader(kafka, topics, self._ledger)
        self._publisher = Publisher(kafka, topics, seed=arguments.seed, rate=arguments.rate)
        self._problems = Problems()
        given = options(
            kafka,
            topics,
            self._versions.store,
            PRELOAD=",".join(MODELS),
            DELIVERY=arguments.delivery,
            SESSION_TIMEOUT_S=SESSION_S,
            TRANSACTION_TIMEOUT_S=TRANSACTION_S,
            DISK_CACHE=self._versions.disk_cache,
            INTRA_OP_THREADS=1,
        )
        self._fleet = Fleet(folder, given)
        self._began = time.monotonic()
        self._next_progress = 0.0
        self._chaos = Chaos(
            arguments.seed,
            fleet=self._fleet,
            kafka=kafka,
            topics=topics,
            versions=self._versions,
            session_s=SESSION_S,
            tell=self._tell,
        )

    def run(self) -> bool:
        """Whether all adds up."""
        try:
            self._fleet.wanted = REPLICAS
            self._go_on(READY_S, self._all_ready, "ready replicas")
            self._began = time.monotonic()
            self._reader.begin()
            self._publisher.start()
            self._disturb(self._began + 60 * self._arguments.minutes)
            self._tell("nothing is done to it any more")
            self._chaos.settle()
            self._go_on(BACK_S, self._chaos.settled, "all brokers")
            settling = time.monotonic()
            if left := self._publisher.stop():
                self._problems.add("not published", f"{left}: {self._publisher.refused[:3]}", left)
            self._go_on(SETTLE_S, lambda: self._ledger.answered >= self._publisher.published, "an answer to every job")
            settled_s = time.monotonic() - settling
            self._end()
        finally:
            self._fleet.end()
            self._reader.close()
        text, adds_up = report(
            Run(
                delivery=self._arguments.delivery,
                seed=self._arguments.seed,
                minutes=self._arguments.minutes,
                published=self._publisher.published,
                done=self._chaos.done,
                ended=self._fleet.ended,
                said=self._fleet.said,
                longest_pause_s=self._reader.longest_pause_s,
                paused_at_s=self._reader.paused_at - self._began,
                settled_s=settled_s,
                served=self._fleet.served,
                corrupt=self._versions.corrupt,
            ),
            self._ledger,
            (
                self._ledger.settle(self._publisher.published, self._fleet.served),
                self._fleet.problems,
                self._chaos.problems,
                self._problems,
            ),
        )
        _say(text)
        return adds_up

    def _disturb(self, until: float) -> None:
        self._chaos.begin()
        while time.monotonic() < until:
            self._chaos.tick()
            self._turn()

    def _all_ready(self) -> bool:
        lives = self._fleet.lives
        return len(lives) == self._fleet.wanted and all(life.replica.get("/readyz")[0] == 200 for life in lives)

    def _end(self) -> None:
        """Stop all replicas; what they may still have published is read."""
        pause = self._reader.longest_pause_s, self._reader.paused_at
        self._fleet.wanted = 0
        for life in self._fleet.running():
            self._fleet.leave(life)
        self._go_on(END_S, lambda: not self._fleet.lives, "the end of all replicas")
        self._go_on(END_S, self._reader.at_end, "the end of the topics: a transaction is open")
        # Nothing was to be answered any more.
        self._reader.longest_pause_s, self._reader.paused_at = pause
        records, lag = self._reader.jobs()
        if records != (published := self._publisher.published + self._ledger.published_twice):
            self._problems.add("published", f"{published} jobs are {records} records")
        if lag:
            self._problems.add("lag", f"{lag} jobs are not committed", lag)

    def _go_on(self, timeout_s: float, until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                self._problems.add("too late", f"not within {timeout_s:g} s: {what}")
                return
            self._turn()

    def _turn(self) -> None:
        self._fleet.tick()
        self._reader.collect()
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_S
            self._tell(
                f"published {self._publisher.published:,}, answered {self._ledger.answered:,}, "
                f"twice {self._ledger.duplicates:,}, replicas {len(self._fleet.serving())}/{self._fleet.wanted}, "
                f"longest pause {self._reader.longest_pause_s:.1f} s"
                + "".join(f", WRONG: {kind} {count}" for kind, count in self._ledger.problems.counts.items())
            )

    def _tell(self, text: str) -> None:
        _say(f"[{time.monotonic() - self._began:6.0f} s] {text}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run; 0 if all adds up."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--delivery", choices=("at-least-once", "exactly-once"), default="exactly-once")
    parser.add_argument("--rate", type=float, default=200.0, help="jobs a second")
    parser.add_argument("--keep", action="store_true", help="keep the logs also where all adds up")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it tells of every broker that is stopped here on purpose
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    folder = Path(tempfile.mkdtemp(prefix="loadonce-soak-"))
    _say(f"seed {arguments.seed}, {arguments.delivery}; logs in {folder}")
    adds_up = False
    try:
        with LocalKafka(3, data_dir=folder / "kafka", config=BROKERS) as kafka:
            adds_up = Soak(arguments, kafka, folder).run()
    finally:
        if adds_up and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _say(f"the logs are kept in {folder}")
    return 0 if adds_up else 1


if __name__ == "__main__":
    sys.exit(main())
