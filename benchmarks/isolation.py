"""What the jobs of a small model notice of a MobileNetV2 that is loaded meanwhile, in each of the three formats.

    python -m benchmarks.isolation [--rounds 3] [--loads 2] [--json]

Jobs at a steady rate, alternately while nothing happens and while versions of the large model are added and loaded:
once new to the machine (a helper process converts them), once known to the disk cache. Then as many jobs as the process
can take, with and without loads. Last, within one process, ways of opening a model on a thread beside a call each
millisecond.
"""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import distribution, parser, report, spread, surroundings, table, tell
from consumer.models.backend import load_keras
from tests import models_zoo as zoo
from tests.conftest import fresh_topics
from tests.replica import Replica, options, replica, until
from tests.stream import Stream

SMALL, BIG = "plus", "big"
FORMATS = ("keras", "h5", "savedmodel")
RATE = 200.0
IDLE_JOBS = 1_000
BURST = 20_000
WAYS = ("savedmodel", "keras", "c-api")


class Store:
    """Adds versions of the large model whose files no two have in common, or all."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"
        self._built = folder / "built"
        self._work = folder / "work"
        self._last: dict[str, int] = defaultdict(int)
        keras = load_keras()
        image = keras.Input((224, 224, 3), name="image")
        large = keras.applications.MobileNetV2(weights=None, input_tensor=image)
        for format_ in FORMATS:
            zoo.put(large, self._built, format_, 1, format_)
        zoo.publish(zoo.put(zoo.dense(bias=1), self._built, SMALL, 1, "keras"), self.path, SMALL, 1)
        zoo.put(zoo.dense(bias=1), self._built, "small", 1, "savedmodel")

    def built(self, name: str) -> Path:
        """A version's folder, outside of the store."""
        return self._built / name / "1"

    def add(self, format_: str, *, new: bool) -> tuple[str, int]:
        """Model and version."""
        key = f"{BIG}-{format_}"
        version = self._last[format_] = self._last[format_] + 1
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self.built(format_), self._work)
        if new:
            _mark(self._work, format_, f"{version}-{time.time_ns()}")
        zoo.publish(self._work, self.path, key, version)
        return key, version


def _mark(folder: Path, format_: str, text: str) -> None:
    """Other bytes, the same model."""
    if format_ == "savedmodel":
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "mark").write_text(text)
        with (folder / "saved_model.pb").open("ab") as file:  # field 1000 of the message, which nobody knows
            file.write(b"\xc2\x3e" + bytes([len(text)]) + text.encode())
    elif format_ == "keras":
        with zipfile.ZipFile(folder / "model.keras", "a") as archive:
            archive.comment = text.encode()
    else:
        import h5py  # noqa: PLC0415 - only here

        with h5py.File(folder / "model.h5", "r+") as file:
            file.attrs["mark"] = text


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="times that each format has its turn")
    arguments.add_argument("--loads", type=int, default=2, help="loads in a turn")
    given = arguments.parse_args()
    with surroundings() as (kafka, folder):
        tell("building the models")
        store = Store(folder)
        for format_ in FORMATS:
            store.add(format_, new=False)
        topics = fresh_topics(kafka)
        stream = Stream(kafka, topics, SMALL)
        preload = ",".join([SMALL, *(f"{BIG}-{format_}" for format_ in FORMATS)])
        started = options(kafka, topics, store.path, PRELOAD=preload, DISK_CACHE=folder / "disk-cache")
        with replica(folder / "log", **started) as process:
            process.wait_ready()
            bench = Bench(store, stream, process, given.loads)
            bench.idle()  # what is slow only at first
            bench.waits.clear()
            for number in range(given.rounds):
                tell(f"round {number + 1}")
                for new in (True, False):
                    for format_ in FORMATS:
                        bench.idle()
                        bench.loading(format_, new=new)
            tell("as many jobs as can be")
            ratios = [bench.saturated_ratio(format_) for _ in range(given.rounds) for format_ in FORMATS]
            process.stop()
        wrong = [one for one in stream.answers.values() if one.version != 1]
        tell("ways of opening within one process")
        result = {
            "rate": RATE,
            "wait_ms": {name: distribution(values) for name, values in bench.waits.items()},
            "load_seconds": {name: spread(values) for name, values in bench.seconds.items()},
            "throughput_ratio": spread(ratios),
            "answers_checked": len(stream.answers),
            "wrong_answers": len(wrong),
            "one_process_ms": {way: _ticker(way, store) for way in WAYS},
        }
    report(result, as_json=given.json, text=lambda: _text(result))
    if wrong:
        raise SystemExit(1)


class Bench:
    """One process, and what its jobs waited."""

    def __init__(self, store: Store, stream: Stream, process: Replica, loads: int) -> None:
        self._store = store
        self._stream = stream
        self._process = process
        self._loads = loads
        self.waits: dict[str, list[int]] = defaultdict(list)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def idle(self) -> None:
        """Jobs, and nothing else."""
        self.waits["idle"] += self._jobs(RATE, lambda count: count >= IDLE_JOBS, lambda: None)

    def loading(self, format_: str, *, new: bool) -> None:
        """Jobs while versions of the large model are loaded, one after another."""
        name = f"{format_}, {'converted' if new else 'from the disk cache'}"
        done = False

        def loads() -> None:
            nonlocal done
            try:
                for _ in range(self._loads):
                    self.seconds[name].append(self._load(format_, new=new))
            finally:
                done = True

        self.waits[name] += self._jobs(RATE, lambda _: done, loads)

    def saturated_ratio(self, format_: str) -> float:
        """Jobs a second while a new version is converted and loaded, against without."""
        idle = self._burst(lambda: None)

        def loads() -> None:
            self._load(format_, new=True)

        return self._burst(loads) / idle

    def _burst(self, meanwhile: Callable[[], None]) -> float:
        """The rate while `meanwhile` goes on, or of BURST jobs where it does nothing."""
        began = time.perf_counter()
        first = len(self._stream.answers)
        ended = False

        def work() -> None:
            nonlocal ended
            try:
                meanwhile()
                until(lambda: self._stream.collect() >= 0 and len(self._stream.answers) - first >= BURST, 60, "answers")
            finally:
                ended = True

        def rate() -> float:
            return (len(self._stream.answers) - first) / (time.perf_counter() - began)

        found = 0.0

        def measured() -> None:
            nonlocal found
            work()
            found = rate()

        # As many in hand as keep the process busy; the publisher waits while there are more.
        self._jobs(1e9, lambda _: ended or self._throttled(lambda: ended), measured)
        return found

    def _throttled(self, ended: Callable[[], bool]) -> bool:
        while self._stream.published - len(self._stream.answers) > 5_000 and not ended():
            time.sleep(0.005)
        return ended()

    def _jobs(self, rate: float, ending: Callable[[int], bool], meanwhile: Callable[[], None]) -> list[int]:
        first = self._stream.published
        publisher = self._stream.publish(rate, ending)
        meanwhile()
        while publisher.is_alive():
            self._stream.collect()
        until(lambda: self._stream.collect() == 0, 60, "an answer to every job")
        return [self._stream.answers[number].wait_ms for number in range(first, self._stream.published)]

    def _load(self, format_: str, *, new: bool) -> float:
        key, version = self._store.add(format_, new=new)

        def loaded() -> list[float]:
            self._stream.collect()
            return [
                event["seconds"]
                for event in self._process.events("model loaded")
                if (event["model"], event["version"]) == (key, version)
            ]

        found: list[float] = until(loaded, 120, f"{key} {version} loaded")
        return found[0]


def _tensors(folder: Path) -> tuple[str, str]:
    """The names of the one input and the one output of a SavedModel."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: PLC0415 - after load_keras

    document = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signature = document.meta_graphs[0].signature_def["serving_default"]
    [given], [gives] = signature.inputs.values(), signature.outputs.values()
    return given.name, gives.name


def _ticker(way: str, store: Store) -> dict[str, Any]:
    small, saved = store.built("small"), store.built("savedmodel")
    big = store.built("keras") if way == "keras" else saved
    command = [sys.executable, "-m", "benchmarks.ticker", way, str(small), str(big), *_tensors(small), *_tensors(saved)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)  # noqa: S603 - our own
    if ended.returncode:
        raise SystemExit(f"{way}: {ended.stderr[-2000:]}")
    found = json.loads(ended.stdout)
    return {
        "idle": distribution(found["idle"]),
        "loading": distribution(found["loading"]),
        "load_seconds": spread(found["load_seconds"]),
    }


def _text(result: dict[str, Any]) -> str:
    header = ["p50", "p99", "p999", "worst"]
    waits = [
        [
            name,
            *(found[column] for column in ["count", *header]),
            result["load_seconds"].get(name, {}).get("median", ""),
        ]
        for name, found in result["wait_ms"].items()
    ]
    ways = [
        [way, kind, *(found[kind][column] for column in ["count", *header]), found["load_seconds"]["median"]]
        for way, found in result["one_process_ms"].items()
        for kind in ("idle", "loading")
    ]
    ratio = result["throughput_ratio"]
    return "\n".join(
        [
            f"jobs of a small model at {result['rate']:g}/s while a MobileNetV2 is loaded; a job's wait, ms:",
            table(["", "jobs", *header, "load s"], waits),
            f"throughput with loads / without: {ratio['median']} ({ratio['least']} to {ratio['greatest']})",
            f"{result['answers_checked']} answers checked, {result['wrong_answers']} wrong",
            "a call each millisecond while a model is opened on a thread of the same process, ms late or busy:",
            table(["opened by", "", "calls", *header, "load s"], ways),
        ]
    )


if __name__ == "__main__":
    main()
