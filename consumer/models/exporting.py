"""How a version is to be exported."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What may be done, and how. `custom_objects`: `module:Name` of what Keras files may use besides Keras' own.

    `trusted`: an .h5 file may run code. `jit_compile`: by XLA.
    """

    max_bytes: int
    trusted: bool = False
    custom_objects: tuple[str, ...] = ()
    jit_compile: bool = False
