"""The helper process: what it may see and do, how it ends, and what is believed of its answers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.models.backend import load_tensorflow
from consumer.models.engine import Threads
from consumer.models.errors import PassingLoadError, PermanentLoadError, StaleError, TookTooLongError
from consumer.models.exporting import ExportOptions
from consumer.models.helper import wire
from consumer.models.helper.process import MAX_SLOW, Helpers
from consumer.models.loader import LoadDone, Loader
from consumer.models.opening import Opener, OpenOptions
from consumer.models.servable import Endpoint, Servable, ServingOptions
from consumer.models.signature import TensorSpec
from consumer.models.store import LocalStore, Located, locate
from schemas.reasons import Reason
from tests import models_zoo as zoo

WAIT_S = 120
NEVER = threading.Event()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def gone(pid: int) -> bool:
    """Ended with all its threads; what nobody of ours has to reap may be there as a zombie."""
    try:
        is_zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
        return is_zombie and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


# the wire ----------------------------------------------------------------------------------------------------------

PLACE = Path("/store/m/1")
LOCATED = Located("m", 1, PLACE, ("model.keras",), (), None)
TARGET = Path("/cache/work/1/model")
SERVING = ServingOptions(warmup_rows=(1, 4), batch_buckets=(4, 8), jit_compile=True, mixed_precision="bfloat16")
SERVABLE = Servable(
    TARGET,
    "keras",
    (Endpoint(TensorSpec("x", "FP32", (None, 3)), "serving_default_input_0:0"),),
    (Endpoint(TensorSpec("y/ü", "BYTES", None), "StatefulPartitionedCall:1"),),
    None,
    12,
    serving=SERVING,
)
DOCUMENT = wire.document_of(SERVABLE, TARGET)


def test_requests_arrive_as_they_were_made() -> None:
    request = wire.OpenRequest(
        LOCATED, TARGET, ExportOptions(5, True, ("a:B",), True), SERVING, Threads(1, 2), memory_bytes=None
    )
    line = wire.request_line(request)
    assert line.endswith(b"\n")
    assert wire.read_request(line) == request


def test_answers_arrive_as_they_were_made() -> None:
    answer = wire.read_answer(wire.answer_line(wire.Opened(DOCUMENT)))
    assert isinstance(answer, wire.Opened)
    assert wire.servable(answer.document, LOCATED, TARGET, SERVING) == SERVABLE
    failed = wire.Failed("too-large", "it is 'too' large")
    assert wire.read_answer(wire.answer_line(failed)) == failed
    assert wire.read_answer(wire.answer_line(wire.Ready())) == wire.Ready()


def test_a_message_is_one_line_without_paths() -> None:
    answer = wire.read_answer(wire.answer_line(wire.Failed("permanent", "in /etc/passwd \x1b[31m\nroot:x:0\n" * 999)))
    assert answer == wire.Failed("permanent", "in ...  [31m")
    answer = wire.read_answer(wire.answer_line(wire.Failed("permanent", "x" * 100_000)))
    assert isinstance(answer, wire.Failed)
    assert len(answer.message) <= 300


TENSOR = {"name": "x", "datatype": "FP32", "shape": [None, 3], "tensor": "x:0"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "h5"},
        {"format": ["keras"]},
        {"in_place": True},
        {"in_place": 0},
        {"weights_bytes": -1},
        {"weights_bytes": 1e9},
        {"weights_bytes": True},
        {"weights_bytes": 2**63},
        {"folder": "/etc"},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [TENSOR] * 2},
        {"inputs": [{**TENSOR, "name": str(place)} for place in range(wire.MAX_TENSORS + 1)]},
        {"inputs": [{**TENSOR, "name": ""}]},
        {"inputs": [{**TENSOR, "name": "x" * 1025}]},
        {"inputs": [{**TENSOR, "name": "\ud800"}]},
        {"inputs": [{**TENSOR, "name": 1}]},
        {"inputs": [{**TENSOR, "datatype": "COMPLEX"}]},
        {"inputs": [{**TENSOR, "shape": []}]},
        {"inputs": [{**TENSOR, "shape": [-1]}]},
        {"inputs": [{**TENSOR, "shape": [None, True]}]},
        {"inputs": [{**TENSOR, "shape": [None, 2**63]}]},
        {"inputs": [{**TENSOR, "shape": [None] * 255}]},
        {"inputs": [{**TENSOR, "shape": "3"}]},
        {"inputs": [{**TENSOR, "tensor": "x"}]},
        {"inputs": [{**TENSOR, "tensor": "x:-1"}]},
        {"inputs": [{**TENSOR, "tensor": "^x:0"}]},
        {"inputs": [{**TENSOR, "tensor": "x\0:0"}]},
        {"inputs": [{**TENSOR, "more": 1}]},
        {"inputs": [TENSOR, {**TENSOR, "name": "z", "shape": [2]}, {**TENSOR, "name": "w", "shape": [3]}]},
        {"outputs": [{**TENSOR, "shape": [7]}]},
    ],
)
def test_what_no_helper_says_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        wire.servable({**DOCUMENT, **change}, LOCATED, TARGET, SERVING)


def test_a_servable_without_a_part_is_none() -> None:
    for part in DOCUMENT:
        with pytest.raises(wire.WireError):
            wire.servable({name: value for name, value in DOCUMENT.items() if name != part}, LOCATED, TARGET, SERVING)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"1" * 5000,
        b'"\xff"',
        b"x" * (wire.LINE_BYTES + 1),
        b'{"answer":"failed","kind":"ok"}',
    ],
)
def test_lines_that_are_no_answer(line: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_answer(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.fixed_dictionaries({part: st.one_of(JSON, st.just(DOCUMENT[part])) for part in DOCUMENT}))
def test_whatever_it_says_is_a_servable_or_refused(document: dict[str, Any]) -> None:
    try:
        servable = wire.servable(document, LOCATED, TARGET, SERVING)
    except wire.WireError:
        return
    assert servable.folder == TARGET
    assert wire.document_of(servable, TARGET) == {
        **document,
        "inputs": DOCUMENT["inputs"],
        "outputs": DOCUMENT["outputs"],
    }


@given(st.one_of(st.binary(), JSON.map(lambda value: json.dumps(value).encode())))
def test_whatever_line_comes_is_an_answer_or_refused(line: bytes) -> None:
    try:
        wire.read_answer(line)
    except wire.WireError:
        return


# the process -------------------------------------------------------------------------------------------------------


def request(folder: Path, target: Path) -> wire.OpenRequest:
    located = locate(folder, "m", 1)
    assert located is not None
    return wire.OpenRequest(located, target, ExportOptions(1 << 30), ServingOptions(), Threads(), 1 << 33)


def start(helpers: Helpers, folder: Path) -> int:
    """Have a helper started and left idle, in a folder of this test's own: its process id."""
    version = folder / "m" / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.keras").write_bytes(b"x")
    with pytest.raises(PermanentLoadError, match="archive, or a truncated one"):
        helpers.open(request(version, folder / "target"), WAIT_S, NEVER)
    return helpers.pids[-1]


def test_a_helper_has_no_secrets_and_is_modest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_SASL_PASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    helpers = Helpers(size=1)
    try:
        pid = start(helpers, tmp_path)
        proc = Path(f"/proc/{pid}")
        environment = (proc / "environ").read_bytes()
        assert b"TF_CPP_MIN_LOG_LEVEL=3" in environment
        assert b"secret" not in environment
        assert (proc / "oom_score_adj").read_text().strip() == "1000"
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
        assert os.getsid(pid) == pid
        (core,) = [line for line in (proc / "limits").read_text().splitlines() if "core" in line]
        assert core.split()[4:6] == ["0", "0"]
        assert {(proc / "fd" / str(fd)).resolve() for fd in (0, 1, 2)} == {Path("/dev/null")}
    finally:
        helpers.close(WAIT_S)


def test_closing_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    helpers = Helpers()
    pid = start(helpers, tmp_path)
    helpers.close(WAIT_S)
    assert not Path(f"/proc/{pid}").exists()
    assert descriptors() == before
    with pytest.raises(StaleError):
        helpers.open(request_of_nothing(), WAIT_S, NEVER)


def request_of_nothing() -> wire.OpenRequest:
    return wire.OpenRequest(LOCATED, TARGET, ExportOptions(1), ServingOptions(), Threads(), None)


def test_a_helper_that_nobody_needs_ends(tmp_path: Path) -> None:
    helpers = Helpers(idle_s=1)
    pid = start(helpers, tmp_path)
    until(lambda: not helpers.pids)
    until(lambda: gone(pid))
    helpers.close(WAIT_S)


def test_a_helper_dies_with_the_consumer(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from tests.unit.test_models_helper import Helpers, start\n"
        f"print(start(Helpers(), pathlib.Path({str(tmp_path)!r})), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as consumer:
        assert consumer.stdout is not None
        pid = int(consumer.stdout.readline())
        assert b"helper.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        consumer.kill()
    until(lambda: gone(pid))


def test_an_idle_helper_that_has_died_is_replaced(tmp_path: Path) -> None:
    helpers = Helpers(size=1)
    try:
        pid = start(helpers, tmp_path)
        os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
        assert start(helpers, tmp_path) != pid
        assert helpers.started == 2
        assert not Path(f"/proc/{pid}").exists()
    finally:
        helpers.close(WAIT_S)


def hanging(store: Path) -> Path:
    """A version that can be opened and never ends when it is called."""
    tf = load_tensorflow()

    def endless(x: Any) -> dict[str, Any]:
        return {"y": tf.while_loop(lambda i, _: i < i + 1, lambda i, v: (i * 1, v + 1.0), [tf.constant(0), x])[1]}

    return zoo.put_module(store / "hanging" / "1", endless, x=tf.TensorSpec([None], tf.float32, name="x"))


def test_a_version_that_never_ends_keeps_a_place_for_a_while_only(tmp_path: Path) -> None:
    never_ends = hanging(tmp_path)
    good = zoo.put(zoo.sequential(), tmp_path, "good", 1, "keras")
    cancelled = threading.Event()
    errors: list[BaseException] = []

    def hang(place: int) -> None:
        try:
            helpers.open(request(never_ends, tmp_path / f"hung-{place}"), WAIT_S, cancelled)
        except StaleError as error:
            errors.append(error)

    helpers = Helpers(size=1, slow_s=1)
    threads = [threading.Thread(target=hang, args=(place,)) for place in range(1 + MAX_SLOW)]
    try:
        for thread in threads[:-1]:
            thread.start()
        until(lambda: len(helpers.busy_pids) == MAX_SLOW)  # one in its place, and one more for each that is slow
        assert helpers.open(request(good, tmp_path / "target"), WAIT_S, NEVER)["format"] == "keras"
        threads[-1].start()
        until(lambda: len(helpers.busy_pids) == 1 + MAX_SLOW)
        enough = threading.Event()
        with pytest.raises(StaleError):  # that is all there are
            threading.Timer(2, enough.set).start()
            helpers.open(request(good, tmp_path / "target"), WAIT_S, enough)
        assert helpers.started == 1 + MAX_SLOW
    finally:
        cancelled.set()
        for thread in threads:
            thread.join(WAIT_S)
        helpers.close(WAIT_S)
    assert len(errors) == len(threads)


def test_opened_once_it_is_found_in_the_disk_cache(opener: Opener, store_of_one: Located, tmp_path: Path) -> None:
    opener.open(store_of_one, NEVER).close()
    same = Opener(opener._options, opener._disk_cache.root, 1 << 30)
    try:
        again = same.open(store_of_one, NEVER)
        assert same.helpers.started == 0
        again.close()
    finally:
        same.close(WAIT_S)


@pytest.fixture(params=["keras", "h5", "savedmodel"])
def store_of_one(request: pytest.FixtureRequest, tmp_path: Path) -> Located:
    located = locate(zoo.put(zoo.dense(bias=7.25), tmp_path, "m", 1, request.param), "m", 1)
    assert located is not None
    return located


@pytest.mark.parametrize("file", ["servable.json", "model/saved_model.pb", "model/variables/variables.index"])
@pytest.mark.parametrize("how", ["missing", "garbage"])
def test_a_broken_entry_is_made_anew(opener: Opener, tmp_path: Path, file: str, how: str) -> None:
    bias = 3.5 + len(file)
    located = locate(zoo.put(zoo.dense(bias=bias), tmp_path, "m", 1, "keras"), "m", 1)
    assert located is not None
    own = Opener(opener._options, tmp_path / "cache", 1 << 30)
    own.helpers = opener.helpers
    own.open(located, NEVER).close()
    (broken,) = (tmp_path / "cache" / "entries").glob(f"*/{file}")
    broken.unlink()
    if how == "garbage":
        broken.write_bytes(b"garbage")
    loaded = own.open(located, NEVER)
    assert loaded.signature.outputs[0].name == "scores"
    loaded.close()
    (mended,) = (tmp_path / "cache" / "entries").glob(f"*/{file}")
    assert mended.read_bytes() != b"garbage"


def test_a_disk_cache_that_others_may_write_to_meanwhile_is_not_used(opener: Opener, tmp_path: Path) -> None:
    located = locate(zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras"), "m", 1)
    assert located is not None
    cache = tmp_path / "cache"
    own = Opener(opener._options, cache, 1 << 30)
    own.helpers = opener.helpers
    cache.chmod(0o777)
    with pytest.raises(PassingLoadError, match="others can write to the disk cache"):
        own.open(located, NEVER)
    cache.chmod(0o700)
    own.open(located, NEVER).close()


def test_a_disk_cache_that_was_removed_is_made_again(opener: Opener, tmp_path: Path) -> None:
    located = locate(zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras"), "m", 1)
    assert located is not None
    own = Opener(opener._options, tmp_path / "cache", 1 << 30)
    own.helpers = opener.helpers
    for _ in range(2):
        loaded = own.open(located, NEVER)
        shutil.rmtree(tmp_path / "cache")  # with what is open
        (answer,) = loaded.predict({"pair": np.array([[1, 2]], np.float32)}).values()
        assert answer.tolist() == [[6]]
        loaded.close()


def test_a_version_that_never_ends_is_tried_once(tmp_path: Path) -> None:
    located = locate(hanging(tmp_path), "hanging", 1)
    assert located is not None
    own = Opener(OpenOptions(frozenset(), 1 << 30, load_timeout_s=2), tmp_path / "cache", 1 << 30)
    done: SimpleQueue[LoadDone | BaseException] = SimpleQueue()
    loader = Loader(
        done.put, LocalStore(tmp_path), own, attempts=3, backoff_s=0.01, backoff_max_s=0.01, events=zoo.Told()
    )
    try:
        loader.submit(located)
        ended = done.get(timeout=WAIT_S)
        assert isinstance(ended, LoadDone)
        assert (ended.permanent, ended.attempts) == (True, 1)
        assert ended.failure is not None
        assert ended.failure.reason is Reason.MODEL_UNAVAILABLE
    finally:
        loader.close(10)
        own.close(WAIT_S)


def test_a_version_that_hangs_in_this_process_only_keeps_no_other_waiting(opener: Opener, tmp_path: Path) -> None:
    tf = load_tensorflow()
    flag = tmp_path / "flag"

    def hangs_while_flagged(x: Any) -> dict[str, Any]:
        [turns] = tf.while_loop(
            lambda _: tf.size(tf.io.matching_files(str(flag))) > 0, lambda turns: turns + 1, [0 * tf.size(x)]
        )
        return {"y": x + 0.0 * tf.cast(turns, tf.float32)}

    hangs = zoo.put_module(tmp_path / "hangs" / "1", hangs_while_flagged, x=tf.TensorSpec([None], tf.float32, name="x"))
    good = zoo.put(zoo.dense(bias=2.5), tmp_path, "good", 1, "keras")
    own = Opener(replace(opener._options, load_timeout_s=20), tmp_path / "cache", 1 << 30)
    own.helpers = opener.helpers
    hanging_one, good_one = locate(hangs, "hangs", 1), locate(good, "good", 1)
    assert hanging_one is not None
    assert good_one is not None
    for one in (hanging_one, good_one):
        own.open(one, NEVER).close()  # the helper's part of it is done
    own._options = replace(own._options, load_timeout_s=1)
    flag.touch()
    try:
        with pytest.raises(TookTooLongError):
            own.open(hanging_one, NEVER)
        own.open(good_one, NEVER).close()
        cancelled = threading.Event()
        cancelled.set()
        with pytest.raises(StaleError):
            own.open(hanging_one, cancelled)
    finally:
        flag.unlink()  # the threads that were left behind come back


def test_another_way_of_calling_a_version_is_tried_by_a_helper_first(opener: Opener, tmp_path: Path) -> None:
    folder = zoo.put(zoo.dense(bias=4.5), tmp_path, "m", 1, "keras")
    own = Opener(opener._options, tmp_path / "cache", 1 << 30)
    own.helpers = opener.helpers

    def entries() -> int:
        located = locate(folder, "m", 1)
        assert located is not None
        own.open(located, NEVER).close()
        return len(list((tmp_path / "cache" / "entries").iterdir()))

    assert entries() == 1
    assert entries() == 1
    (folder / "manifest.json").write_text('{"serving": {"warmup_rows": [1, 64]}}')
    assert entries() == 2


PROGRAM = """
import sys, threading
from pathlib import Path

import numpy as np

from consumer.models.opening import Opener, OpenOptions
from consumer.models.store import locate

store, cache = map(Path, sys.argv[1:])
opener = Opener(OpenOptions(frozenset(), 1 << 30), cache, 1 << 30)
loaded = opener.open(locate(store / "m" / "1", "m", 1), threading.Event())
(answer,) = loaded.predict({"pair": np.array([[1, 2]], np.float32)}).values()
assert answer.tolist() == [[6]], answer
loaded.close()
opener.close(10)
assert opener.helpers.started == 1
print(sorted({"tensorflow", "keras", "h5py"} & set(sys.modules)))
"""


def test_the_consumer_never_imports_tensorflow(tmp_path: Path) -> None:
    zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / "cache")],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
