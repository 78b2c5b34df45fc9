"""A store of small real models whose answers can be told by heart."""

from pathlib import Path
from typing import Any

from consumer.models.backend import load_tensorflow
from tests.models_zoo import put_module

DOUBLE = "double"  # FP32 [rows, n] -> 2x, for any n
FUSSY = "fussy"  # FP32 [rows, 1] -> x; raises where any x is negative
WIDE = "wide"  # FP32 [rows, 1] -> FP32 [rows, 1,000,000]: 4 MB a row
SUM = "sum"  # FP32 'a' [rows, 2], INT32 'b' [rows, 2] -> 'total' and 'difference', FP32 [rows, 2]
UPPER = "upper"  # BYTES [rows, 1] -> BYTES [rows, 1]
BROKEN = "broken"  # a .keras file that is none
SLOW = "slow"  # FP32 [rows, 1] -> 2x; a graph of some thousand nodes takes seconds to open
DEADLY = "deadly"  # FP32 [rows, 1] -> 2x; aborts the process where any x is 666
SLEEPY = "sleepy"  # FP32 [rows, 1] -> 2x; does not return where any x is 666


def write(store: Path) -> Path:
    """Write all of them as version 1, as a stranger would: without manifests."""
    tf = load_tensorflow()

    def save(name: str, function: Any, **signature: Any) -> None:
        put_module(store / name / "1", function, **signature)

    floats = tf.TensorSpec([None, None], tf.float32, name="x")
    one = tf.TensorSpec([None, 1], tf.float32, name="x")

    def fussy(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_non_negative(x)]):
            return {"y": tf.identity(x)}

    def total(a: Any, b: Any) -> Any:
        b = tf.cast(b, tf.float32)
        return {"total": a + b, "difference": a - b}

    def slow(x: Any) -> Any:
        for _ in range(3_000):
            x = x + 0.0
        return {"y": x * 2.0}

    def deadly(x: Any) -> Any:
        def abort() -> Any:
            with tf.control_dependencies([tf.raw_ops.Abort(error_msg="666")]):
                return tf.identity(x)

        return {"y": 2.0 * tf.cond(tf.reduce_any(x == 666.0), abort, lambda: tf.identity(x))}

    def sleepy(x: Any) -> Any:
        held = tf.reduce_any(x == 666.0)
        _, x = tf.while_loop(lambda go, _: go, lambda go, y: (go, tf.identity(y)), [held, x])
        return {"y": x * 2.0}

    save(DEADLY, deadly, x=one)
    save(SLEEPY, sleepy, x=one)
    save(SLOW, slow, x=one)
    save(DOUBLE, lambda x: {"y": x * 2.0}, x=floats)
    save(FUSSY, fussy, x=one)
    save(WIDE, lambda x: {"y": tf.tile(x, [1, 1_000_000])}, x=one)
    save(
        SUM,
        total,
        a=tf.TensorSpec([None, 2], tf.float32, name="a"),
        b=tf.TensorSpec([None, 2], tf.int32, name="b"),
    )
    save(UPPER, lambda text: {"text": tf.strings.upper(text)}, text=tf.TensorSpec([None, 1], tf.string, name="text"))
    broken = store / BROKEN / "1"
    broken.mkdir(parents=True)
    (broken / "model.keras").write_bytes(b"PK\x03\x04 not a model")
    return store
