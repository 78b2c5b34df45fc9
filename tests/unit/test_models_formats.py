"""The three formats with real models and real broken files: signature, predictions, refusals."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.digest import sha256
from consumer.models.engine import EngineError
from consumer.models.engine.session import has_bfloat16
from consumer.models.errors import PermanentLoadError, StaleError, TooLargeError
from consumer.models.opening import Opener, OpenOptions
from consumer.models.runtime import Loaded
from consumer.models.signature import Signature, TensorSpec
from consumer.models.store import locate
from schemas.reasons import Reason
from tests import models_zoo as zoo

FORMATS = ["keras", "h5", "savedmodel"]
KERAS = ["keras", "h5"]


NEVER = threading.Event()

Open = Callable[..., Loaded]


@pytest.fixture
def opened(opener: Opener) -> Iterator[Open]:
    """Opens a version's folder; the models are closed after the test."""
    models: list[Loaded] = []

    def opened(folder: Path, *, trusted: bool = False) -> Loaded:
        located = locate(folder, "trusted" if trusted else "m", 1)
        assert located is not None
        models.append(opener.open(located, NEVER))
        return models[-1]

    yield opened
    for model in models:
        model.close()


def stored(tmp_path: Path, model: Any, format_: str) -> Path:
    return zoo.put(model, tmp_path, "m", 1, format_)


def too_large(folder: Path, max_bytes: int) -> TooLargeError:
    located = locate(folder, "m", 1)
    assert located is not None
    opener = Opener(OpenOptions(frozenset(), max_bytes), folder.parent / "disk-cache", 1 << 30)
    try:
        with pytest.raises(TooLargeError) as caught:
            opener.open(located, NEVER)
    finally:
        opener.close(10)
    return caught.value


def refused(opened: Open, folder: Path, **options: Any) -> str:
    with pytest.raises(PermanentLoadError) as caught:
        opened(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "/" not in message
    return message


def f4(*rows: Any) -> Any:
    return np.array(rows, np.float32)


# what opens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_one_input(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.dense(bias=0.5), format_))
    assert loaded.format == format_
    assert loaded.signature.inputs == (TensorSpec("features", "FP32", (None, 4)),)
    (output,) = loaded.signature.outputs
    assert (output.datatype, output.shape) == ("FP32", (None, 3))
    if format_ != "savedmodel":
        assert output.name == "scores"
    assert loaded.signature.rows is None
    answer = loaded.predict({"features": f4([1, 2, 3, 4], [0, 0, 0, 0])})
    np.testing.assert_array_equal(answer[output.name], f4([10.5] * 3, [0.5] * 3))
    assert answer[output.name].dtype == np.float32
    assert loaded.load_seconds > 0
    assert loaded.nbytes >= 15 * 4


@pytest.mark.parametrize("format_", FORMATS)
def test_sequential(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.sequential(), format_))
    assert [spec.name for spec in loaded.signature.inputs] == ["pair"]
    (answer,) = loaded.predict({"pair": f4([1, 2])}).values()
    np.testing.assert_array_equal(answer, f4([6]))
    if format_ != "savedmodel":
        assert [spec.name for spec in loaded.signature.outputs] == ["sum"]


@pytest.mark.parametrize("format_", FORMATS)
def test_several_named_inputs_and_outputs(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.two_by_two(), format_))
    assert loaded.signature == Signature(
        inputs=(TensorSpec("image", "FP32", (None, 2)), TensorSpec("token", "INT32", (None, 3))),
        outputs=(TensorSpec("echo", "FP32", (None, 2)), TensorSpec("total", "FP32", (None, 1))),
        rows=None,
    )
    answer = loaded.predict({"token": np.zeros((2, 3), np.int32), "image": f4([1, 2], [3, 4])})
    assert list(answer) == ["echo", "total"]
    np.testing.assert_array_equal(answer["echo"], f4([10, 20], [30, 40]))
    np.testing.assert_array_equal(answer["total"], f4([3], [7]))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("structure", ["list", "dict of other names"])
def test_inputs_as_a_list_or_a_dict(opened: Open, tmp_path: Path, format_: str, structure: str) -> None:
    keras = load_keras()
    b, a = keras.Input((1,), name="b"), keras.Input((1,), name="a")
    outputs = keras.layers.Subtract(name="b_minus_a")([b, a])
    model = keras.Model([b, a] if structure == "list" else {"x": b, "y": a}, outputs)
    loaded = opened(stored(tmp_path, model, format_))
    assert {spec.name for spec in loaded.signature.inputs} == {"a", "b"}
    (answer,) = loaded.predict({"a": f4([1]), "b": f4([5])}).values()
    np.testing.assert_array_equal(answer, f4([4]))


@pytest.mark.parametrize("format_", FORMATS)
def test_integers_and_a_dimension_that_varies(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.embedding(), format_))
    assert loaded.signature.inputs == (TensorSpec("tokens", "INT32", (None, None)),)
    for length in (1, 2, 7):
        (answer,) = loaded.predict({"tokens": np.ones((3, length), np.int32)}).values()
        np.testing.assert_array_equal(answer, np.ones((3, 2), np.float32))


@pytest.mark.parametrize("format_", FORMATS)
def test_strings(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.text(), format_))
    assert loaded.signature.inputs == (TensorSpec("text", "BYTES", (None, 1)),)
    (answer,) = loaded.predict({"text": np.array([[b"a kafka"], [b"model"]], object)}).values()
    np.testing.assert_array_equal(answer, [[1, 2], [3, 0]])
    assert answer.dtype == np.int64


def test_strings_come_out_as_bytes(opened: Open, tmp_path: Path) -> None:
    tf = load_tensorflow()
    folder = zoo.put_module(
        tmp_path / "1", lambda x: {"upper": tf.strings.upper(x)}, x=tf.TensorSpec((None,), tf.string, "x")
    )
    loaded = opened(folder)
    answer = loaded.predict({"x": np.array([b"a\xff", b""], object)})["upper"]
    assert answer.dtype == object
    assert answer.tolist() == [b"A\xff", b""]


@pytest.mark.parametrize("format_", KERAS)
def test_a_fixed_number_of_rows(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.fixed_rows(), format_))
    assert loaded.signature.rows == 3
    np.testing.assert_array_equal(loaded.predict({"pair": f4([1, 1], [2, 2], [3, 3])})["sum"], f4([2], [4], [6]))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "uint8", "int64", "bool", "uint32"])
def test_datatypes_go_through_exactly(opened: Open, tmp_path: Path, name: str) -> None:
    tf = load_tensorflow()
    dtype = tf.as_dtype(name)
    folder = zoo.put_module(tmp_path / "1", lambda x: {"same": tf.identity(x)}, x=tf.TensorSpec((None, 2), dtype, "x"))
    loaded = opened(folder)
    array = np.array([[0, 1]]).astype(dtype.as_numpy_dtype)
    answer = loaded.predict({"x": array})["same"]
    assert answer.dtype == array.dtype
    np.testing.assert_array_equal(answer, array)


def test_a_signature_of_any_rank(opened: Open, tmp_path: Path) -> None:
    tf = load_tensorflow()
    folder = zoo.put_module(tmp_path / "1", lambda x: {"twice": x + x}, x=tf.TensorSpec(None, tf.float32, "x"))
    loaded = opened(folder)
    assert loaded.signature.inputs == (TensorSpec("x", "FP32", None),)
    assert loaded.predict({"x": np.ones((2, 3, 4), np.float32)})["twice"].shape == (2, 3, 4)


def test_the_only_signature_serves_whatever_its_name(opened: Open, tmp_path: Path) -> None:
    tf = load_tensorflow()
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x * 3.0}, input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"other": module.f})
    np.testing.assert_array_equal(opened(tmp_path / "1").predict({"x": f4(1, 2)})["y"], f4(3, 6))
    tf.saved_model.save(module, str(tmp_path / "2"), signatures={"other": module.f, "another": module.f})
    assert "2 signatures and none is serving_default" in refused(opened, tmp_path / "2")


def test_a_savedmodel_of_tensorflow_1(opened: Open, tmp_path: Path) -> None:
    tf = load_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.string, [None], name="x")
        factor = tf.compat.v1.get_variable("factor", initializer=tf.constant(3.0))
        y = tf.strings.to_number(x) * factor
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "1"), {"text": x}, {"number": y})
    loaded = opened(tmp_path / "1")
    assert loaded.signature.inputs == (TensorSpec("text", "BYTES", (None,)),)
    np.testing.assert_array_equal(loaded.predict({"text": np.array([b"2"], object)})["number"], f4(6))


@pytest.mark.parametrize("format_", KERAS)
def test_dropout_and_the_like_do_not_train(opened: Open, tmp_path: Path, format_: str) -> None:
    keras = load_keras()
    inputs = keras.Input((100,), name="x")
    loaded = opened(stored(tmp_path, keras.Model(inputs, keras.layers.Dropout(0.9, name="y")(inputs)), format_))
    np.testing.assert_array_equal(loaded.predict({"x": np.ones((1, 100), np.float32)})["y"], np.ones((1, 100)))


@pytest.mark.parametrize("format_", KERAS)
def test_a_layer_with_two_outputs_gives_distinct_names(opened: Open, tmp_path: Path, format_: str) -> None:
    keras = load_keras()
    inputs = keras.Input((2, 3), name="x")
    outputs = keras.layers.LSTM(2, return_state=True, name="lstm")(inputs)
    loaded = opened(stored(tmp_path, keras.Model(inputs, outputs), format_))
    assert [spec.name for spec in loaded.signature.outputs] == ["lstm", "lstm_1", "lstm_2"]


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_is_cast(opened: Open, tmp_path: Path, format_: str) -> None:
    loaded = opened(stored(tmp_path, zoo.embedding(), format_))
    with pytest.raises(EngineError):
        loaded.predict({"tokens": np.ones((1, 2), np.int64)})


def test_keras_traces_a_model_once_whatever_its_rows_and_however_often_it_is_opened(
    opened: Open, tmp_path: Path
) -> None:
    from tests.custom_layers import Counting

    calls = tmp_path / "calls"
    inputs = load_keras().Input((None,), name="x")
    folder = stored(tmp_path, load_keras().Model(inputs, Counting(str(calls))(inputs)), "keras")
    loaded = opened(folder)
    before = calls.stat().st_size
    for rows in range(1, 20):
        loaded.predict({"x": np.ones((rows, rows), np.float32)})
    opened(folder)
    assert calls.stat().st_size == before


def test_a_model_that_does_not_take_zeros_is_served_all_the_same(opened: Open, tmp_path: Path) -> None:
    tf = load_tensorflow()
    folder = zoo.put_module(
        tmp_path / "1", lambda x: {"number": tf.strings.to_number(x)}, x=tf.TensorSpec((None,), tf.string, "x")
    )
    np.testing.assert_array_equal(opened(folder).predict({"x": np.array([b"1.5"], object)})["number"], f4(1.5))


def asking(folder: Path, **serving: Any) -> Path:
    (folder / "manifest.json").write_text(json.dumps({"serving": serving}))
    return folder


def compiled(folder: Path) -> Path:
    return asking(folder, jit_compile=True, batch_buckets=[2, 4])


@pytest.mark.parametrize("format_", FORMATS)
def test_xla_compiles_what_asks_for_it(opened: Open, tmp_path: Path, format_: str) -> None:
    folder = stored(tmp_path, zoo.two_by_two(), format_)
    usual = opened(folder)
    loaded = opened(compiled(folder))
    assert loaded.signature == usual.signature
    assert b"_XlaMustCompile" in (loaded.servable.folder / "saved_model.pb").read_bytes()
    for rows in (1, 2, 3, 9):
        inputs = {
            "token": np.ones((rows, 3), np.int32),
            "image": np.arange(2.0 * rows, dtype=np.float32).reshape(-1, 2),
        }
        answer, expected = loaded.predict(inputs), usual.predict(inputs)
        for name, array in expected.items():
            np.testing.assert_allclose(answer[name], array, rtol=1e-5)


def test_what_xla_cannot_compile_is_not_served(opened: Open, tmp_path: Path) -> None:
    assert "XLA cannot compile it" in refused(opened, compiled(stored(tmp_path, zoo.text(), "keras")))


# how exactly it computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_mixed_precision_is_in_effect(opened: Open, tmp_path: Path, format_: str) -> None:
    folder = stored(tmp_path, zoo.dense(features=512), format_)
    usual = opened(folder)
    (name,) = (spec.name for spec in usual.signature.inputs)
    loaded = opened(asking(folder, mixed_precision="bfloat16"))
    assert loaded.signature == usual.signature
    inputs = {name: np.random.default_rng(1).random((64, 512), np.float32)}
    (exact,), (mixed,) = usual.predict(inputs).values(), loaded.predict(inputs).values()
    assert mixed.dtype == np.float32
    off = np.abs(mixed - exact) / exact
    if has_bfloat16():
        assert 2**-12 < off.max() < 2**-7  # it has 8 bits, float32 24
    else:
        assert off.max() == 0
    (again,) = opened(asking(folder, mixed_precision="none")).predict(inputs).values()
    np.testing.assert_array_equal(again, exact)


def test_float16_without_a_gpu_changes_nothing(opened: Open, tmp_path: Path) -> None:
    if load_tensorflow().config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    folder = stored(tmp_path, zoo.dense(features=512), "keras")
    inputs = {"features": np.random.default_rng(1).random((64, 512), np.float32)}
    exact = opened(folder).predict(inputs)["scores"]
    mixed = opened(asking(folder, mixed_precision="float16")).predict(inputs)["scores"]
    np.testing.assert_array_equal(mixed, exact)


def test_what_a_manifest_leaves_open_is_as_for_all_models(tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    options = OpenOptions(frozenset(), 1 << 30, jit_compile=True, mixed_precision="bfloat16")
    opener = Opener(options, tmp_path / "disk-cache", 1 << 30)

    def found(folder: Path) -> tuple[bool | None, str | None, bool]:
        located = locate(folder, "m", 1)
        assert located is not None
        loaded = opener.open(located, NEVER)
        loaded.close()
        is_compiled = b"_XlaMustCompile" in (loaded.servable.folder / "saved_model.pb").read_bytes()
        serving = loaded.servable.serving
        return serving.jit_compile, serving.mixed_precision, is_compiled

    try:
        assert found(folder) == (True, "bfloat16", True)
        assert found(asking(folder, warmup_rows=[1])) == (True, "bfloat16", True)
        assert found(asking(folder, jit_compile=False, mixed_precision="none")) == (False, "none", False)
    finally:
        opener.close(10)


# what it counts with -----------------------------------------------------------------------------------------------

COUNTED = """
import json, sys, threading
from pathlib import Path

from consumer.models.engine import trim
from consumer.models.opening import Opener, OpenOptions
from consumer.models.store import locate

opener = Opener(OpenOptions(frozenset(), 1 << 30), Path(sys.argv[1]), 1 << 30)
version = locate(Path(sys.argv[2]), "m", 1)
first, second = opener.open(version, threading.Event()), opener.open(version, threading.Event())
counted = [first.nbytes, second.nbytes]
first.close(), second.close(), trim()
counted.append(opener.open(version, threading.Event()).nbytes)
opener.close(10)
print(json.dumps(counted))
"""


def counted(tmp_path: Path, folder: Path) -> list[int]:
    """The bytes of a version that a new process opens, opens once more, and opens again when it has closed both."""
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED, str(tmp_path / "disk-cache"), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout))


def test_a_model_counts_with_its_variables_and_little_more_whoever_was_before(tmp_path: Path) -> None:
    keras = load_keras()
    inputs = keras.Input((2048,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2048)(keras.layers.Dense(2048)(inputs)))
    weights = 2 * 2048 * 2049 * 4
    for nbytes in counted(tmp_path, stored(tmp_path, model, "keras")):
        assert weights <= nbytes < 1.5 * weights


def test_a_savedmodel_counts_with_the_variables_that_its_signature_uses(tmp_path: Path) -> None:
    tf = load_tensorflow()
    module = tf.Module()
    module.used = tf.Variable(tf.ones([2048, 1024]))
    module.unused = tf.Variable(tf.ones([4096, 4096]))
    module.serve = tf.function(lambda x: {"y": tf.matmul(x, module.used)}, autograph=False)
    concrete = module.serve.get_concrete_function(tf.TensorSpec([None, 2048], tf.float32, name="x"))
    folder = tmp_path / "m" / "1"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    used, unused = 2048 * 1024 * 4, 4096 * 4096 * 4
    for nbytes in counted(tmp_path, folder):
        assert used <= nbytes < used + unused / 4


def test_constants_of_a_graph_count(tmp_path: Path) -> None:
    tf = load_tensorflow()
    weights = np.random.default_rng(1).random((2048, 1024), np.float32)
    folder = zoo.put_module(
        tmp_path / "m" / "1",
        lambda x: {"y": tf.matmul(x, tf.constant(weights))},
        x=tf.TensorSpec([None, 2048], tf.float32, name="x"),
    )
    for nbytes in counted(tmp_path, folder):
        assert nbytes >= weights.nbytes


# what is not served ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "shape", "dtype", "why"),
    [
        (lambda tf, x: tf.reduce_sum(x), (None, 2), "float32", "output 'y' has rank 0"),
        (lambda tf, x: tf.reduce_sum(x, 0, keepdims=True), (None, 2), "float32", "does not follow the rows"),
        (lambda tf, x: tf.reshape(x, (-1,)), (None, 2), "float32", "output 'y' has shape [2] for 1 rows"),
        (lambda tf, x: tf.reshape(tf.reduce_sum(x), tf.shape(x)[:0]), (None,), "float32", "rank 0"),
        (lambda tf, x: tf.ensure_shape(x[:1], None), None, "float32", "output 'y' has shape [1] for 2 rows"),
        (lambda tf, x: x, (), "float32", "input 'x' has rank 0"),
        (lambda tf, x: x, (None,), "complex64", "input 'x' is complex64"),
        (lambda tf, x: tf.cast(x, tf.complex64), (None,), "float32", "output 'y' is complex64"),
        (lambda tf, x: tf.quantization.quantize(x, 0.0, 1.0, tf.quint8).output, (None,), "float32", "is quint8"),
    ],
)
def test_signatures_outside_of_the_contract_are_refused(
    opened: Open, tmp_path: Path, *, function: Callable[[Any, Any], Any], shape: Any, dtype: str, why: str
) -> None:
    tf = load_tensorflow()
    folder = zoo.put_module(
        tmp_path / "1", lambda x: {"y": function(tf, x)}, x=tf.TensorSpec(shape, tf.as_dtype(dtype), "x")
    )
    assert why in refused(opened, folder)


@pytest.mark.parametrize("format_", KERAS)
def test_sparse_inputs_are_refused(opened: Open, tmp_path: Path, format_: str) -> None:
    keras = load_keras()
    inputs = keras.Input((4,), sparse=True, name="x")
    folder = stored(tmp_path, keras.Model(inputs, keras.layers.Dense(1)(inputs)), format_)
    assert "sparse or ragged" in refused(opened, folder)


@pytest.mark.parametrize("format_", KERAS)
def test_lambda_layers_are_refused(opened: Open, tmp_path: Path, format_: str) -> None:
    message = refused(opened, stored(tmp_path, zoo.with_lambda(), format_))
    assert "Lambda" in message
    assert ("LOADONCE_TRUSTED_H5_MODELS" in message) == (format_ == "h5")


def test_an_h5_model_that_is_trusted_may_hold_a_lambda(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.with_lambda(), "h5")
    np.testing.assert_array_equal(opened(folder, trusted=True).predict({"pair": f4([1, 2])})["twice"], f4([2, 4]))


def test_trust_is_for_h5_only(opened: Open, tmp_path: Path) -> None:
    refused(opened, stored(tmp_path, zoo.with_lambda(), "keras"), trusted=True)


def edit_h5(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with h5py.File(folder / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def last_layer(config: dict[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = config["config"]["layers"][-1]
    return layer


@pytest.mark.parametrize(
    "change",
    [
        lambda config: last_layer(config).update(class_name="TFOpLambda"),
        lambda config: last_layer(config).update(class_name="TFSMLayer"),
        lambda config: last_layer(config).update(class_name="os.system"),
        lambda config: last_layer(config).update(class_name=["Dense"]),
        lambda config: last_layer(config).update(module="os"),
        lambda config: last_layer(config).update(module="kerasx.layers"),
        lambda config: last_layer(config).update(registered_name="Custom>Dense"),
        lambda config: last_layer(config)["config"].update(
            activation={"class_name": "function", "config": "system", "module": "os"}
        ),
        lambda config: last_layer(config)["config"].update(activation={"class_name": "__lambda__", "config": {}}),
        lambda config: last_layer(config)["config"].update(deep=[[{"a": [{"class_name": "Lambda"}]}]]),
        lambda config: last_layer(config)["config"].update(function=["4wEAAAA=", None, None]),
        lambda config: config.update(class_name="Evil"),
    ],
)
def test_an_h5_configuration_with_anything_but_keras_own_is_refused(
    opened: Open, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = stored(tmp_path, zoo.dense(), "h5")
    edit_h5(folder, change)
    assert "LOADONCE_TRUSTED_H5_MODELS" in refused(opened, folder)


def test_an_h5_layer_that_reads_another_file_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "vocabulary").write_text("secret\n")
    keras = load_keras()
    inputs = keras.Input((1,), dtype="string", name="x")
    layer = keras.layers.StringLookup(vocabulary=["word"])
    folder = stored(tmp_path, keras.Model(inputs, layer(inputs)), "h5")
    edit_h5(folder, lambda config: last_layer(config)["config"].update(vocabulary=str(tmp_path / "vocabulary")))
    refused(opened, folder)
    opened(folder, trusted=True)  # it would have been read


def test_the_configuration_is_read_before_keras_sees_the_file(opened: Open, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    keras = load_keras()
    inputs = keras.Input((2,), name="pair")
    code = f"lambda x: (__import__('pathlib').Path({str(ran)!r}).touch(), x)[1]"
    model = keras.Model(inputs, keras.layers.Lambda(eval(code))(inputs))
    folder = stored(tmp_path, model, "h5")
    ran.unlink()
    refused(opened, folder)
    assert not ran.exists()
    opened(folder, trusted=True)
    assert ran.exists()  # it would have run


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "x" * 100])
def test_an_h5_configuration_that_is_no_json(opened: Open, tmp_path: Path, config: str) -> None:
    folder = stored(tmp_path, zoo.dense(), "h5")
    with h5py.File(folder / "model.h5", "r+", track_order=True) as file:
        del file.attrs["model_config"]
        file.attrs["model_config"] = config
    assert "not JSON" in refused(opened, folder)


def test_an_h5_file_of_weights_only(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    zoo.dense().save_weights(tmp_path / "1" / "x.weights.h5")
    (tmp_path / "1" / "x.weights.h5").rename(tmp_path / "1" / "model.h5")
    assert "weights and no model" in refused(opened, tmp_path / "1")


def test_an_h5_file_with_weights_in_another_file(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "h5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros((4, 3), np.float32)
    with h5py.File(folder / "model.h5", "r+") as file:
        names: list[str] = []
        file["model_weights"].visit(names.append)
        (name,) = [name for name in names if name.endswith(("kernel", "kernel:0"))]
        del file["model_weights"][name]
        file["model_weights"][name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    assert "ExternalLink" in refused(opened, folder)


# broken files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_corrupt(opened: Open, tmp_path: Path, format_: str, keep: float) -> None:
    folder = stored(tmp_path, zoo.dense(), format_)
    file = folder / {"savedmodel": "saved_model.pb"}.get(format_, f"model.{format_}")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    refused(opened, folder)


@pytest.mark.parametrize("format_", FORMATS)
def test_garbage_is_corrupt(opened: Open, tmp_path: Path, format_: str) -> None:
    (tmp_path / "1").mkdir()
    name = {"savedmodel": "saved_model.pb"}.get(format_, f"model.{format_}")
    (tmp_path / "1" / name).write_bytes(b"this is not a model" * 100)
    refused(opened, tmp_path / "1")


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_savedmodel_without_its_variables_is_corrupt(opened: Open, tmp_path: Path, name: str, how: str) -> None:
    folder = stored(tmp_path, zoo.dense(), "savedmodel")
    file = folder / "variables" / name
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:10])
    refused(opened, folder)


def test_weights_of_another_shape_are_corrupt(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "h5")
    edit_h5(folder, lambda config: last_layer(config)["config"].update(units=5))
    refused(opened, folder)


def archive_of(folder: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("name", ["../escape", "/absolute", "a/../../b", "..\\escape", "C:\\x"])
def test_an_archive_with_names_that_lead_out_is_refused(opened: Open, tmp_path: Path, name: str) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, lambda entries: entries.update({name: b"x"}))
    assert "leads out of it" in refused(opened, folder)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, lambda entries: entries.update({"assets/bomb": bytes(50_000_000)}))
    assert (folder / "model.keras").stat().st_size < 1_000_000
    assert "unpacked it has 50" in str(too_large(folder, 10_000_000))


def test_an_archive_of_too_many_entries_is_refused(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, lambda entries: entries.update({f"assets/{index}": b"" for index in range(10_001)}))
    assert "entries" in refused(opened, folder)


def test_an_archive_with_a_huge_configuration_is_refused(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, lambda entries: entries.update({"config.json": b" " * (64 * 1024 * 1024 + 1)}))
    assert "config.json" in refused(opened, folder)


def test_an_archive_that_imports_is_refused(opened: Open, tmp_path: Path) -> None:
    def change(entries: dict[str, bytes]) -> None:
        config = json.loads(entries["config.json"])
        config["config"]["layers"][-1].update(module="os", class_name="system", registered_name=None)
        entries["config.json"] = json.dumps(config).encode()

    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, change)
    refused(opened, folder)


def test_weights_in_the_archive_that_point_elsewhere_are_refused(opened: Open, tmp_path: Path) -> None:
    def change(entries: dict[str, bytes]) -> None:
        buffer = io.BytesIO(entries["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = next(name for name in names if isinstance(file[name], h5py.Dataset))
            del file[name]
            file[name] = h5py.ExternalLink("/etc/hostname", "/x")
        entries["model.weights.h5"] = buffer.getvalue()

    folder = stored(tmp_path, zoo.dense(), "keras")
    archive_of(folder, change)
    refused(opened, folder)


def test_a_model_larger_than_the_cache_is_not_opened(tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "h5")
    assert too_large(folder, 1000).reason is Reason.MODEL_UNAVAILABLE


# digests -----------------------------------------------------------------------------------------------------------


def manifest(folder: Path, **changes: str | None) -> None:
    files = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    for name, digest in changes.items():
        if digest is None:
            del files[name]
        else:
            files[name] = digest
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


@pytest.mark.parametrize("format_", FORMATS)
def test_digests_that_hold(opened: Open, tmp_path: Path, format_: str) -> None:
    folder = stored(tmp_path, zoo.dense(), format_)
    manifest(folder)
    assert opened(folder).format == format_


@pytest.mark.parametrize("format_", FORMATS)
def test_one_flipped_bit_is_corrupt(opened: Open, tmp_path: Path, format_: str) -> None:
    folder = stored(tmp_path, zoo.dense(), format_)
    manifest(folder)
    name = {"savedmodel": "variables/variables.data-00000-of-00001"}.get(format_, f"model.{format_}")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert "the digest of" in refused(opened, folder)


def test_a_file_without_a_digest_is_not_opened(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "savedmodel")
    manifest(folder, **{"variables/variables.index": None})
    assert refused(opened, folder) == "the manifest has no digest of variables.index"


def test_digests_are_of_lower_or_upper_case(opened: Open, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    manifest(folder, **{"model.keras": sha256(folder / "model.keras").upper()})
    opened(folder)


# changes in between ------------------------------------------------------------------------------------------------


def test_files_that_are_not_those_of_the_look_are_stale(opener: Opener, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    located = locate(folder, "m", 1)
    assert located is not None
    zoo.dense(bias=1.0).save(folder / "model.keras")
    with pytest.raises(StaleError):
        opener.open(located, NEVER)


def test_a_withdrawn_version_is_stale_and_not_corrupt(opener: Opener, tmp_path: Path) -> None:
    folder = stored(tmp_path, zoo.dense(), "keras")
    located = locate(folder, "m", 1)
    assert located is not None
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StaleError):
        opener.open(located, NEVER)
