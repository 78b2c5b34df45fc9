"""TensorFlow and Keras, imported late (4 to 11 s) and quietly."""

import logging
import os
import warnings
from typing import Any


def load_tensorflow() -> Any:
    """The `tensorflow` module, with Keras set to run on it. Ours must be the first import of either in the process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no notes on CPU features, oneDNN and absent GPUs
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf  # noqa: PLC0415 - late on purpose

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tf


def load_keras() -> Any:
    """The `keras` module, on TensorFlow."""
    load_tensorflow()
    import keras  # noqa: PLC0415

    # What Keras thinks of how a model was built helps nobody who serves it.
    warnings.filterwarnings("ignore", module="keras")
    return keras
