"""Layers that are not Keras' own, which the helper process imports where it is allowed to."""

from pathlib import Path
from typing import Any

from consumer.models.backend import load_keras

keras = load_keras()
Layer: Any = keras.layers.Layer


class Counting(Layer):  # type: ignore[misc] # Keras has no types
    """Its input as it came; adds a byte to a file each time that Python calls it."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.calls = path

    def call(self, inputs: Any) -> Any:
        with Path(self.calls).open("ab") as file:
            file.write(b".")
        return inputs * 1.0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "path": self.calls}


@keras.saving.register_keras_serializable("ours")
class Registered(Layer):  # type: ignore[misc] # Keras has no types
    """Twice its input."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2.0


class Stranger(Layer):  # type: ignore[misc] # Keras has no types
    """Its input as it came."""

    def call(self, inputs: Any) -> Any:
        return inputs * 1.0
