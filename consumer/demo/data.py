"""Three small models, trained in seconds on the data that ships with scikit-learn, with the samples held out.

Importing this imports TensorFlow, which takes 4 to 15 s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging as absl_logging
from keras import layers
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split

HELD_OUT = 0.3
SEED = 7


@dataclass(frozen=True, slots=True)
class Trained:
    """A model on disk and what it must be able to repeat.

    `samples` is float32, `(n, ...)`, never seen in training; `labels` and `answers` are `(n,)` class indices: the
    truth, and what the model itself says when it is called directly.
    """

    key: str
    format: str
    path: Path
    samples: NDArray[np.float32]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]


def train(folder: Path, tell: Callable[[str], None]) -> list[Trained]:
    """Train digits (.keras), breast-cancer (.h5) and wine (SavedModel) into `folder`; `tell` hears what goes on."""
    absl_logging.set_verbosity(absl_logging.ERROR)  # Keras warns that .h5 is legacy, which is why it is here
    keras.utils.set_random_seed(SEED)
    digits = datasets.load_digits()
    images = digits.images[..., np.newaxis]
    convolutions = [
        layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
    ]
    cancer, wine = datasets.load_breast_cancer(), datasets.load_wine()
    return [
        _train(folder / "digits.keras", images, digits.target, body=convolutions, epochs=8, tell=tell),
        _train(folder / "breast-cancer.h5", cancer.data, cancer.target, body=[_dense()], epochs=12, tell=tell),
        _train(folder / "wine", wine.data, wine.target, body=[_dense()], epochs=30, tell=tell),
    ]


def _dense() -> Any:
    return layers.Dense(16, activation="relu")


def _train(
    path: Path,
    features: NDArray[Any],
    labels: NDArray[np.int64],
    *,
    body: list[Any],
    epochs: int,
    tell: Callable[[str], None],
) -> Trained:
    samples, held_out, known, truth = train_test_split(
        features.astype(np.float32), labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    key = path.stem
    tell(f"training {key} on {len(samples)} samples, {len(held_out)} held out")
    scaling = layers.Normalization()
    scaling.adapt(samples)
    classes = layers.Dense(len(np.unique(labels)), activation="softmax", name="probabilities")
    model = keras.Sequential([keras.Input(samples.shape[1:], name="features"), scaling, *body, classes])
    model.compile(optimizer=keras.optimizers.Adam(0.005), loss="sparse_categorical_crossentropy")
    model.fit(samples, known, epochs=epochs, batch_size=32, verbose=0)
    if path.suffix:
        model.save(path, include_optimizer=False)
    else:
        model.export(path, verbose=False)
    answers = np.asarray(model(held_out, training=False)).argmax(axis=1)
    return Trained(key, path.suffix.lstrip(".") or "savedmodel", path, held_out, truth, answers)
