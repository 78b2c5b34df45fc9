"""Tiny real models, built in well under a second each."""

import shutil
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.events import Snapshot
from consumer.models.runtime import Loaded
from schemas.reasons import Failure


def dense(*, features: int = 4, bias: float = 0.0) -> Any:
    """`features` FP32 [rows, features] -> `scores` FP32 [rows, 3], each score the row's sum plus `bias`."""
    keras = load_keras()
    inputs = keras.Input((features,), name="features")
    initializer = keras.initializers.Constant(bias)
    scores = keras.layers.Dense(3, kernel_initializer="ones", bias_initializer=initializer, name="scores")(inputs)
    return keras.Model(inputs, scores)


def sequential() -> Any:
    """One input [rows, 2], one output [rows, 1]: twice the row's sum."""
    keras = load_keras()
    twice = keras.initializers.Constant(2.0)
    return keras.Sequential(
        [keras.Input((2,), name="pair"), keras.layers.Dense(1, kernel_initializer=twice, name="sum")]
    )


def two_by_two() -> Any:
    """`image` FP32 [rows, 2] and `token` INT32 [rows, 3] -> `total` = the image's sum, `echo` = 10 x the image."""
    keras = load_keras()
    image = keras.Input((2,), name="image")
    token = keras.Input((3,), dtype="int32", name="token")
    looked_up = keras.layers.Flatten()(keras.layers.Embedding(10, 2, embeddings_initializer="zeros")(token))
    joined = keras.layers.Concatenate()([image, looked_up])
    total = keras.layers.Dense(1, kernel_initializer="ones", name="total")(joined)
    echo = keras.layers.Rescaling(10.0, name="echo")(image)
    return keras.Model({"image": image, "token": token}, {"total": total, "echo": echo})


def embedding() -> Any:
    """`tokens` INT32 [rows, any] -> `mean` FP32 [rows, 2], all ones: integers, of a length that may vary."""
    keras = load_keras()
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    vectors = keras.layers.Embedding(10, 2, embeddings_initializer="ones")(tokens)
    return keras.Model(tokens, keras.layers.GlobalAveragePooling1D(name="mean")(vectors))


def text() -> Any:
    """`text` BYTES [rows, 1] -> `ids` INT64 [rows, 2]: words of a vocabulary of `kafka` (2) and `model` (3)."""
    keras = load_keras()
    words = keras.Input((1,), dtype="string", name="text")
    layer = keras.layers.TextVectorization(output_sequence_length=2, vocabulary=["kafka", "model"], name="ids")
    return keras.Model(words, layer(words))


def with_lambda() -> Any:
    """A model that holds code."""
    keras = load_keras()
    inputs = keras.Input((2,), name="pair")
    return keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2.0, name="twice")(inputs))


def fixed_rows() -> Any:
    """Takes exactly 3 rows."""
    keras = load_keras()
    inputs = keras.Input(batch_shape=(3, 2), name="pair")
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="sum")(inputs))


def put(model: Any, store: Path, key: str, version: int | str, format_: str) -> Path:
    """Store a Keras model as `keras`, `h5` or `savedmodel`, not atomically; the version's folder."""
    folder = store / key / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    if format_ == "savedmodel":
        model.export(folder, verbose=False)
    else:
        model.save(folder / f"model.{format_}")
    return folder


def put_module(folder: Path, function: Any, **signature: Any) -> Path:
    """Store a plain TensorFlow function as a SavedModel: `signature` are the TensorSpecs of its inputs by name."""
    tf = load_tensorflow()
    module = tf.Module()
    module.serve = tf.function(function, autograph=False)
    concrete = module.serve.get_concrete_function(**signature)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    return folder


class Told:
    """A listener that keeps what it is told, as tuples that begin with the name of the event."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.snapshot = Snapshot()

    def model_loaded(self, loaded: Loaded) -> None:
        self.events.append(("loaded", loaded.key, loaded.version))

    def load_attempt_failed(self, key: str, version: int, attempt: int, error: str, wait_s: float) -> None:
        self.events.append(("attempt", key, version, attempt, error, wait_s))

    def load_failed(self, key: str, version: int, failure: Failure) -> None:
        self.events.append(("failed", key, version, failure.reason))

    def load_abandoned(self, key: str, version: int, why: str) -> None:
        self.events.append(("abandoned", key, version, why))

    def waiting_for_room(self, key: str, version: int, why: str) -> None:
        self.events.append(("waiting", key, version, why))

    def version_served(self, loaded: Loaded, before: int | None) -> None:
        self.events.append(("served", loaded.key, loaded.version, before))

    def none_served(self, key: str, before: int) -> None:
        self.events.append(("none served", key, before))

    def alias_served(self, key: str, alias: str, version: int | None) -> None:
        self.events.append(("alias", key, alias, version))

    def store_looked(self, models: Collection[str]) -> None:
        """Each look; nothing here counts them."""

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def model_dropped(self, loaded: Loaded, why: str) -> None:
        self.events.append(("dropped", loaded.key, loaded.version, why))

    def store_problem(self, text: str) -> None:
        self.events.append(("problem", text))

    def count(self, *event: Any) -> int:
        """How often an event that begins so was told."""
        return sum(told[: len(event)] == event for told in self.events)


def publish(folder: Path, store: Path, key: str, version: int | str, *, torn: bool = False) -> Path:
    """Copy a version's folder into a store as `models add` would: beside it, then renamed.

    `torn`: with half of its `model.keras`, as a copy that was cut off leaves it; nobody writes to it any more.
    """
    target = store / key / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=store) as work:
        new = shutil.copytree(folder, Path(work, "new"))
        if torn:
            whole = (new / "model.keras").read_bytes()
            (new / "model.keras").write_bytes(whole[: len(whole) // 2])
        new.rename(target)
    return target
