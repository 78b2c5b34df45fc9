"""TensorFlow's C API, through ctypes: opening a SavedModel and running it, without importing `tensorflow`.

A foreign call releases the interpreter's lock, so that a model that is being opened here does not stop the loop;
`import tensorflow` takes 4 to 14 s and `tf.saved_model.load` holds the lock for 100 ms at a time.
"""

from consumer.models.engine.library import EngineUnavailableError, open_library
from consumer.models.engine.memory import heap_bytes, resident_bytes, trim
from consumer.models.engine.session import MixedPrecision, Session, Threads
from consumer.models.engine.status import Code, EngineError

__all__ = [
    "Code",
    "EngineError",
    "EngineUnavailableError",
    "MixedPrecision",
    "Session",
    "Threads",
    "heap_bytes",
    "open_library",
    "resident_bytes",
    "trim",
]
