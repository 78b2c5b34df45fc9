"""The digests of a manifest against the files."""

import hashlib
from pathlib import Path

from consumer.models.errors import PermanentLoadError
from consumer.models.store import Located

CHUNK_BYTES = 1 << 20


def sha256(path: Path) -> str:
    """The file's digest, lower-case hex, read in pieces. OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify(located: Located) -> bool:
    """Check every file that the manifest names, and that it names all that will be opened. False: there is no digest.

    PermanentLoadError names the file. OSError.
    """
    if located.manifest is None or not located.manifest.files:
        return False
    digests = located.manifest.files
    for name in opened_files(located):
        if name not in digests:
            raise PermanentLoadError(f"the manifest has no digest of {name.rpartition('/')[2]}")
    for name, digest in digests.items():
        if sha256(located.path / name) != digest:
            raise PermanentLoadError(f"the digest of {name.rpartition('/')[2]} is not the manifest's")
    return True


def opened_files(located: Located) -> list[str]:
    """The files that opening the version reads."""
    if located.model_file != "saved_model.pb":
        return [located.model_file]
    return [name for name in located.files if name == "saved_model.pb" or name.startswith(("variables/", "assets"))]
