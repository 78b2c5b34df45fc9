"""Real SavedModels through TensorFlow's C API, in a process that has imported TensorFlow and in one that never does."""

import _ctypes
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.engine import (
    Code,
    EngineError,
    EngineUnavailableError,
    MixedPrecision,
    Session,
    Threads,
    open_library,
    trim,
)
from consumer.models.engine.library import Library
from consumer.models.engine.session import session_config
from consumer.models.errors import PassingLoadError, PermanentLoadError
from consumer.models.runtime import Loaded, is_passing, warm_up
from consumer.models.servable import Servable, ServingOptions
from consumer.models.signature import DATATYPES
from schemas.tensor import DTYPES
from tests import models_zoo, savedmodels

MB = 1 << 20
NUMBERS = sorted(set(DATATYPES.values()) - {"BYTES"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def identity(folder: Path, *shape: int | None, dtype: str = "float32") -> Servable:
    tf = load_tensorflow()
    name = f"{dtype}-{len(shape)}"
    spec = tf.TensorSpec(shape, dtype)
    return savedmodels.save(folder / name, lambda x: {"y": tf.identity(x)}, x=spec)


@pytest.fixture(scope="module")
def same(folder: Path) -> Session:
    """FP32 [rows, any], the same back."""
    return savedmodels.session(identity(folder, None, None))


@pytest.fixture(scope="module")
def texts(folder: Path) -> Session:
    """BYTES [rows, any], the same back."""
    return savedmodels.session(identity(folder, None, None, dtype="string"))


@pytest.fixture(scope="module")
def heavy(folder: Path) -> Servable:
    """10 MB of weights."""
    keras = load_keras()
    inputs = keras.Input((1600,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1600, name="y")(inputs))
    return savedmodels.servable(models_zoo.put(model, folder, "heavy", 1, "savedmodel"))


def names(servable: Servable) -> tuple[list[str], list[str]]:
    return [end.tensor for end in servable.inputs], [end.tensor for end in servable.outputs]


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    trim()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# tensors -----------------------------------------------------------------------------------------------------------


def values(datatype: str) -> list[Any]:
    dtype = DTYPES[datatype]
    if datatype == "BOOL":
        return [True, False, True]
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return [info.min, info.max, 1]
    largest = ml_dtypes.finfo(dtype).max  # type: ignore[no-untyped-call] # it has no types
    return [float("nan"), float("-inf"), float(largest)]


@pytest.fixture(scope="module")
def everything(folder: Path) -> Session:
    """One input and one output of each numeric datatype, by its name; the same back."""
    tf = load_tensorflow()
    specs = {theirs: ours for theirs, ours in DATATYPES.items() if ours != "BYTES"}
    takes = {ours: tf.TensorSpec([None, 3], theirs) for theirs, ours in specs.items()}
    servable = savedmodels.save(
        folder / "everything", lambda **x: {name: tf.identity(value) for name, value in x.items()}, **takes
    )
    assert [end.spec.datatype for end in servable.inputs] == NUMBERS
    return savedmodels.session(servable)


@pytest.mark.parametrize("rows", [0, 1, 20_000])
def test_every_datatype_comes_back_bit_by_bit(everything: Session, rows: int) -> None:
    given = [np.array([values(datatype)] * rows, DTYPES[datatype]).reshape(rows, 3) for datatype in NUMBERS]
    for datatype, array, back in zip(NUMBERS, given, everything.run(given), strict=True):
        assert (back.dtype, back.shape) == (DTYPES[datatype], (rows, 3))
        assert back.tobytes() == array.tobytes()
        assert not back.flags.writeable


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.T,
        lambda a: a[::2, ::-3],
        lambda a: a[1:, 1:],
        np.asfortranarray,
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[0], (7, a.shape[1])),
    ],
)
def test_arrays_of_any_strides_and_byte_order(same: Session, make: Any) -> None:
    array = make(np.arange(70 * 90, dtype="f4").reshape(70, 90))
    [back] = same.run([array])
    np.testing.assert_array_equal(back, array)


def test_what_was_given_may_be_written_to_at_once(same: Session) -> None:
    array = np.ones((1000, 100), "f4")
    [back] = same.run([array])  # an identity gives its input's memory
    array[:] = 2
    assert back.min() == back.max() == 1


STRINGS = [b"", b"a", b"nul\0s\0", b"\xff\xfe", b"x" * 22, b"x" * 23, b"y" * 100_000, "ü".encode()]


def test_strings_of_every_length_come_back(texts: Session) -> None:
    array = np.array(STRINGS, object).reshape(4, 2)
    [back] = texts.run([array])
    assert back.dtype == object
    assert back.tolist() == array.tolist()
    assert not back.flags.writeable
    assert texts.run([array.T])[0].tolist() == array.T.tolist()
    assert texts.run([array[:0]])[0].shape == (0, 2)


def test_strings_that_a_model_keeps_outlive_the_call(tmp_path: Path) -> None:
    tf = load_tensorflow()
    module = tf.Module()
    module.kept = tf.Variable(["first"], shape=[None], dtype=tf.string)

    def swap(x: Any) -> dict[str, Any]:
        before = tf.identity(module.kept.read_value())
        with tf.control_dependencies([before]):
            module.kept.assign(x)
        return {"y": before}

    module.swap = tf.function(swap, input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.swap})
    session = savedmodels.session(savedmodels.servable(tmp_path))
    assert session.run([np.array([b"z" * 5000, b"short"], object)])[0].tolist() == [b"first"]
    for _ in range(50):
        [back] = session.run([np.array([b"z" * 5000, b"short"], object)])
        assert back.tolist() == [b"z" * 5000, b"short"]
    session.close()


def test_outputs_outlive_their_session(folder: Path) -> None:
    session = savedmodels.session(identity(folder, None, None))
    [large], [small] = session.run([np.full((500, 500), 7, "f4")]), session.run([np.full((1, 2), 8, "f4")])
    part = large[100:, 1]
    del large
    session.close()
    gc.collect()
    trim()
    assert part.tolist() == [7] * 400
    assert small.tolist() == [[8, 8]]


@pytest.mark.parametrize(
    "array",
    [np.zeros((1, 1), "c8"), np.array([["text"]], object), np.array([["text"]]), np.array([[None]], object)],
)
def test_what_is_no_datatype_of_the_contract_is_refused(same: Session, array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"contract|BYTES"):
        same.run([array])


# sessions ----------------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_go_by_position(folder: Path) -> None:
    tf = load_tensorflow()
    spec = tf.TensorSpec([None], tf.float32)
    servable = savedmodels.save(
        folder / "places", lambda a, b: {"difference": a - b, "quotient": a / b}, a=spec, b=spec
    )
    inputs, outputs = names(servable)
    one, four = np.ones(1, "f4"), np.full(1, 4, "f4")
    there = Session.open(servable.folder, inputs, outputs)
    back = Session.open(servable.folder, inputs[::-1], outputs[::-1])
    assert [y.tolist() for y in there.run([one, four])] == [[-3], [0.25]]
    assert [y.tolist() for y in back.run([one, four])] == [[4], [3]]


def test_variables_are_restored(folder: Path) -> None:
    servable = savedmodels.servable(models_zoo.put(models_zoo.dense(bias=0.5), folder, "dense", 1, "savedmodel"))
    [scores] = savedmodels.session(servable).run([np.ones((2, 4), "f4")])
    assert scores.tolist() == [[4.5] * 3] * 2


def test_tables_are_filled(folder: Path) -> None:
    servable = savedmodels.servable(models_zoo.put(models_zoo.text(), folder, "text", 1, "savedmodel"))
    [ids] = savedmodels.session(servable).run([np.array([[b"kafka model"], [b"else"]], object)])
    assert ids.tolist() == [[2, 3], [1, 0]]


def test_operations_may_run_in_the_thread_that_calls(folder: Path) -> None:
    tf = load_tensorflow()

    def loops(x: Any) -> dict[str, Any]:
        doubled = tf.map_fn(
            lambda row: tf.while_loop(lambda i, _: i < 3, lambda i, r: (i + 1, r * 2.0), (0, row))[1], x
        )
        return {"y": doubled}

    servable = savedmodels.save(folder / "loops", loops, x=tf.TensorSpec([None], tf.float32))
    inputs, outputs = names(servable)
    session = Session.open(servable.folder, inputs, outputs, Threads(inter=-1))
    assert session.run([np.arange(50, dtype="f4")])[0].tolist() == [8 * n for n in range(50)]


def test_a_bad_call_fails_alone(folder: Path) -> None:
    servable = savedmodels.servable(models_zoo.put(models_zoo.dense(), folder, "bad", 1, "savedmodel"))
    session = savedmodels.session(servable)
    for bad in (np.ones((2, 5), "f4"), np.ones((2, 4), "f8")):
        with pytest.raises(EngineError) as caught:
            session.run([bad])
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert caught.value.kind == "InvalidArgument"
        assert not caught.value.passing
        assert caught.value.message
    for arrays in ([], [np.ones((2, 4), "f4")] * 2):
        with pytest.raises(ValueError, match="for 1 inputs"):
            session.run(arrays)
    assert session.run([np.ones((1, 4), "f4")])[0].tolist() == [[4, 4, 4]]


def test_a_closed_session_does_not_run(folder: Path) -> None:
    session = savedmodels.session(identity(folder, None, None))
    session.close()
    session.close()
    with pytest.raises(EngineError) as caught:
        session.run([np.ones((1, 1), "f4")])
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize("tensor", ["nope:0", "{}:1", "{}:-1", "{}:99999999999999", "{}:x", "{}:0:0", "{}:²", ":0", ""])
def test_a_tensor_that_the_graph_lacks(folder: Path, tensor: str) -> None:
    servable = identity(folder, None, None)
    inputs, outputs = names(servable)
    for wrong in ([tensor.format(inputs[0].partition(":")[0])], inputs):
        wrong_outputs = outputs if wrong is not inputs else [tensor.format(outputs[0].partition(":")[0])]
        with pytest.raises(EngineError) as caught:
            Session.open(servable.folder, wrong, wrong_outputs)
        assert caught.value.code is Code.NOT_FOUND


def test_a_folder_without_a_savedmodel(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        Session.open(tmp_path, ["x:0"], ["y:0"])
    assert caught.value.code is Code.NOT_FOUND
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError) as caught:
        Session.open(tmp_path, ["x:0"], ["y:0"])
    assert not caught.value.passing


def test_threads_share_a_session(same: Session) -> None:
    def call(number: int) -> None:
        array = np.full((number % 7 + 1, number % 5 + 1), number, "f4")
        for _ in range(200):
            [back] = same.run([array])
            assert back.shape == array.shape
            assert (back == number).all()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(call, number) for number in range(8)]:
            done.result(timeout=60)


def test_closing_waits_for_nobody_and_breaks_no_call(folder: Path) -> None:
    servable = identity(folder, None, None)
    array = np.ones((300, 300), "f4")
    for _ in range(10):
        session = savedmodels.session(servable)
        running = threading.Barrier(4)

        def call(session: Session = session, running: threading.Barrier = running) -> None:
            session.run([array])
            running.wait(timeout=30)
            with pytest.raises(EngineError, match="closed"):
                while True:
                    assert (session.run([array])[0] == 1).all()

        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(call) for _ in range(3)]
            running.wait(timeout=30)
            session.close()
            for done in calls:
                done.result(timeout=30)


def test_opening_lets_other_threads_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = load_tensorflow()

    def deep(x: Any) -> dict[str, Any]:
        for _ in range(3000):
            x = tf.sin(x) + 1.0
        return {"y": x}

    servable = savedmodels.save(tmp_path / "deep", deep, x=tf.TensorSpec([None], tf.float32))
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.001)

    during = []
    load = open_library().load_session

    def watched(*arguments: Any) -> Any:
        before = ticks
        opened = load(*arguments)
        during.append(ticks - before)
        return opened

    monkeypatch.setattr(open_library(), "load_session", watched)
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        savedmodels.session(servable).close()
    finally:
        stop.set()
        ticker.join(10)
    assert during[0] >= 5  # with the interpreter's lock held: none, and one as the call ends


# memory ------------------------------------------------------------------------------------------------------------


def test_memory_comes_back_from_closed_sessions(heavy: Servable) -> None:
    array = np.zeros((1, 1600), "f4")

    def cycle(times: int) -> int:
        for _ in range(times):
            session = savedmodels.session(heavy)
            session.run([array])
            session.close()
        return resident()

    before = cycle(20)
    assert cycle(280) - before < 280 * 10 * MB / 20


def test_memory_comes_back_from_what_fails(heavy: Servable, same: Session) -> None:
    def cycle(times: int) -> int:
        for _ in range(times):
            with pytest.raises(EngineError):
                Session.open(heavy.folder, ["nope:0"], ["nope:0"])
            for wrong in ([np.zeros((1, MB), "f8")], [np.zeros((1, MB), "f4")] * 2):
                with pytest.raises((EngineError, ValueError)):
                    same.run(wrong)
        return resident()

    before = cycle(10)
    assert cycle(60) - before < 60 * 10 * MB / 10


def test_memory_comes_back_from_long_strings(texts: Session) -> None:
    array = np.array([[b"s" * 5000] * 4], object)

    def cycle(times: int) -> int:
        for _ in range(times):
            texts.run([array])
        return resident()

    before = cycle(2000)
    assert cycle(20_000) - before < 20_000 * 4 * 5000 / 10


# the process -------------------------------------------------------------------------------------------------------

ALONE = """
import json, os, sys
from pathlib import Path
import numpy as np
from consumer.models.engine import EngineError, Session, Threads
from consumer.models.runtime import Loaded
folder, inputs, outputs, threads = json.loads(sys.argv[1])
session = Session.open(Path(folder), inputs, outputs, Threads(*threads))
[same] = session.run([np.ones((1, 2), "f4")])
try:
    session.run([np.full((1, 2), -424242, "f4")])
    failed = quotes = None
except EngineError as error:
    failed, quotes = error.kind, "424242" in error.message
session.close()
imported = sorted({"tensorflow", "keras"} & sys.modules.keys())
print(json.dumps([same.tolist(), failed, quotes, imported, len(os.listdir("/proc/self/task"))]))
"""


def alone(servable: Servable, *threads: int) -> tuple[list[Any], str]:
    """What the script prints in a process of its own, and its standard error."""
    argument = json.dumps([str(servable.folder), *names(servable), threads])
    done = subprocess.run(
        [sys.executable, "-c", ALONE, argument], capture_output=True, text=True, timeout=120, check=True
    )
    result: list[Any] = json.loads(done.stdout)
    return result, done.stderr


def test_a_process_predicts_without_importing_tensorflow(folder: Path) -> None:
    tf = load_tensorflow()

    def fussy(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return {"y": tf.identity(x)}

    servable = savedmodels.save(folder / "alone", fussy, x=tf.TensorSpec([None, 2], tf.float32))
    few, said = alone(servable, 1, 1)
    assert few[:4] == [[[1, 1]], "InvalidArgument", True, []]
    assert "424242" not in said  # TensorFlow's error quotes the data, its log must not
    many, _ = alone(servable, 20, 10)
    assert many[4] >= few[4] + 9  # the threads that were asked for


def test_the_configuration_is_what_tensorflow_reads() -> None:
    load_tensorflow()
    from tensorflow.core.protobuf import config_pb2

    for threads in (Threads(), Threads(3, 300), Threads(inter=-1)):
        config = config_pb2.ConfigProto()
        config.ParseFromString(session_config(threads, "none"))
        assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (
            threads.intra,
            threads.inter,
        )
        assert config.gpu_options.allow_growth
        assert config.SerializeToString(deterministic=True) == session_config(threads, "none")


@pytest.mark.parametrize(
    ("precision", "option"),
    [("bfloat16", "auto_mixed_precision_onednn_bfloat16"), ("float16", "auto_mixed_precision")],
)
def test_mixed_precision_is_an_option_of_the_session(precision: MixedPrecision, option: str) -> None:
    load_tensorflow()
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

    encoded = session_config(Threads(3), precision)
    config = config_pb2.ConfigProto()
    config.ParseFromString(encoded)
    rewrites = rewriter_config_pb2.RewriterConfig(**{option: rewriter_config_pb2.RewriterConfig.ON})
    assert config.graph_options.rewrite_options == rewrites
    assert config.SerializeToString(deterministic=True) == encoded


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: None, "cannot be opened"),
        (lambda path: path.write_bytes(b"not a library"), "cannot be opened"),
        (lambda path: path.symlink_to(_ctypes.__file__), "lacks TF_NewStatus"),
    ],
)
def test_a_package_without_the_c_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Any, says: str) -> None:
    for name in ("libtensorflow_framework", "libtensorflow_cc"):
        prepare(tmp_path / f"{name}{'.2.dylib' if sys.platform == 'darwin' else '.so.2'}")
    monkeypatch.setattr("consumer.models.engine.library._folder", lambda: tmp_path)
    with pytest.raises(EngineUnavailableError, match=says) as caught:
        Library()
    assert "install tensorflow" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


# loaded models -----------------------------------------------------------------------------------------------------


class Watched(Loaded):
    """A model that keeps the numbers of rows it was called with."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.rows: list[int] = []

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.rows.append(len(inputs["x"]))
        return super().predict(inputs)


@pytest.fixture(scope="module")
def counted(folder: Path) -> Path:
    """`x` FP32 [rows] -> `rows`, how many they were, and `sum` over all, both [rows], and `first`, [1]."""
    tf = load_tensorflow()

    def count(x: Any) -> dict[str, Any]:
        size = tf.shape(x)[:1]
        return {"same": x, "rows": tf.fill(size, size[0]), "sum": tf.fill(size, tf.reduce_sum(x)), "first": x[:1]}

    return savedmodels.save(folder / "counted", count, x=tf.TensorSpec([None], tf.float32)).folder


@pytest.mark.parametrize(("rows", "ran"), [(1, 4), (3, 4), (4, 4), (5, 8), (8, 8), (9, 9)])
def test_batches_are_padded_to_their_bucket_and_cut(counted: Path, rows: int, ran: int) -> None:
    loaded = savedmodels.load(savedmodels.servable(counted, ServingOptions(batch_buckets=(4, 8))), Loaded)
    x = np.arange(rows, dtype="f4") + 1
    found = loaded.predict({"x": x})
    assert list(found) == [spec.name for spec in loaded.signature.outputs]
    assert found["same"].tolist() == x.tolist()
    assert found["rows"].tolist() == [ran] * rows
    assert found["sum"].tolist() == [x.sum() + (ran - rows) * rows] * rows  # the last row is repeated
    assert len(found["first"]) == 1
    assert not any(output.flags.writeable for output in found.values())
    loaded.close()


def test_no_rows_are_not_padded(folder: Path) -> None:
    servable = identity(folder, None, None, dtype="string")
    loaded = savedmodels.load(savedmodels.servable(servable.folder, ServingOptions(batch_buckets=(4,))), Loaded)
    assert loaded.predict({"x": np.empty((0, 2), object)})["y"].shape == (0, 2)
    three = np.array([[b"a"], [b"b"], [b"c" * 50]], object)
    assert loaded.predict({"x": three})["y"].tolist() == three.tolist()
    loaded.close()
    with pytest.raises(EngineError, match="closed"):
        loaded.predict({"x": three})


@pytest.mark.parametrize(
    ("serving", "rows"),
    [
        (ServingOptions(), [1, 2]),
        (ServingOptions(warmup_rows=(5,)), [5]),
        (ServingOptions(batch_buckets=(2, 4)), [1, 2, 4]),
    ],
)
def test_warming_up_calls_as_often_as_is_asked(folder: Path, serving: ServingOptions, rows: list[int]) -> None:
    watched = savedmodels.load(savedmodels.servable(identity(folder, None, None).folder, serving), Watched)
    warm_up(watched)
    assert watched.rows == rows


def test_a_model_of_fixed_rows_is_warmed_up_with_them(folder: Path) -> None:
    watched = savedmodels.load(identity(folder, 3, 1, 1), Watched)
    warm_up(watched)
    assert watched.rows == [3]


def test_outputs_must_follow_the_rows(folder: Path) -> None:
    spec = load_tensorflow().TensorSpec([None], "float32")
    one = savedmodels.save(folder / "one", lambda x: {"y": x[:1]}, x=spec)
    with pytest.raises(PermanentLoadError, match=r"output 'y' has shape \[1\] for 2 rows"):
        warm_up(savedmodels.load(one, Loaded))


def test_a_model_that_refuses_zeros_is_served(folder: Path) -> None:
    tf = load_tensorflow()

    def positive(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return {"y": tf.identity(x)}

    watched = savedmodels.load(
        savedmodels.save(folder / "positive", positive, x=tf.TensorSpec([None], "float32")), Watched
    )
    warm_up(watched)
    assert watched.rows == [1]
    assert watched.predict({"x": np.ones(2, "f4")})["y"].tolist() == [1, 1]


def test_a_model_that_breaks_down_is_not(folder: Path) -> None:
    tf = load_tensorflow()
    spec = tf.TensorSpec([None], tf.string)
    missing = savedmodels.save(folder / "missing", lambda x: {"y": tf.map_fn(tf.io.read_file, x + "nowhere")}, x=spec)
    with pytest.raises(PermanentLoadError, match="warming up failed"):
        warm_up(savedmodels.load(missing, Loaded))


def test_a_model_that_says_try_again_may_be_tried_again(folder: Path) -> None:
    tf = load_tensorflow()

    def closed(x: Any) -> dict[str, Any]:
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32])
        with tf.control_dependencies([tf.raw_ops.QueueCloseV2(handle=queue)]):
            put = tf.raw_ops.QueueEnqueueV2(handle=queue, components=[tf.reduce_sum(x)])  # Cancelled
        with tf.control_dependencies([put]):
            return {"y": tf.identity(x)}

    servable = savedmodels.save(folder / "closed", closed, x=tf.TensorSpec([None], tf.float32))
    with pytest.raises(PassingLoadError, match="warming up failed"):
        warm_up(savedmodels.load(servable, Loaded))


def test_which_errors_pass() -> None:
    passing = {code.name for code in Code if is_passing(EngineError(code, ""))}
    assert passing == {
        "ABORTED",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
    }
    assert is_passing(MemoryError())
    assert not is_passing(ValueError())
    assert Code(99) is Code.UNKNOWN
