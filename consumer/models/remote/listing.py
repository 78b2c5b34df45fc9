"""What object names mean: `name/version/file`. A name is whatever a stranger has written until it is checked here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from consumer.models.manifest import MAX_FILES, fits
from consumer.models.remote.objects import Blob
from consumer.models.store import ALIASES, MAX_DEPTH, MODEL_FILES, NAME, VERSION, Fingerprint

_UNSAFE = frozenset("\\?#*[]")
"""Path separators elsewhere, and what fsspec's file systems take for more than a letter (versions, patterns)."""


@dataclass(slots=True)
class ModelObjects:
    """The objects under one name: files by version's folder, and the aliases."""

    folders: dict[str, dict[str, Blob]] = field(default_factory=dict)
    aliases: Blob | None = None


def group(objects: Mapping[str, Blob]) -> dict[str, ModelObjects]:
    """The objects by model and version. Those that belong to neither are left out."""
    models: dict[str, ModelObjects] = {}
    for path, blob in objects.items():
        key, _, rest = path.partition("/")
        if not NAME.fullmatch(key) or not rest:
            continue
        model = models.setdefault(key, ModelObjects())
        folder, _, name = rest.partition("/")
        if rest == ALIASES:
            model.aliases = blob
        elif name and VERSION.fullmatch(folder):
            model.folders.setdefault(folder, {})[name] = blob
    return models


def version_folders(model: ModelObjects) -> tuple[dict[int, str], list[str]]:
    """The folder of each version, and what is wrong: of `1` and `01` the shorter counts."""
    chosen: dict[int, str] = {}
    problems = []
    for folder in sorted(model.folders, key=lambda folder: (len(folder), folder)):
        used = chosen.setdefault(int(folder), folder)
        if used != folder:
            problems.append(f"'{used}' and '{folder}' are one version; '{used}' is used")
    return chosen, problems


def fingerprint(files: Mapping[str, Blob]) -> tuple[Fingerprint, str | None]:
    """Name, bytes, mark and 0 of each file, sorted, and why the version must not be downloaded, if it must not.

    Empty: it holds no model (yet). A refused one has a fingerprint that changes with it, without names.
    """
    shown = {name: blob for name, blob in files.items() if not _hidden(name)}
    if not any(name in MODEL_FILES for name in shown):
        return (), None
    refusal = _refusal(shown)
    if refusal is None:
        return tuple(sorted((name, blob.nbytes, blob.mark, 0) for name, blob in shown.items())), None
    whole = blake2b(repr(sorted(shown.items(), key=lambda item: item[0])).encode(errors="replace"), digest_size=8)
    mark = int.from_bytes(whole.digest()) >> 1
    return (("", sum(blob.nbytes for blob in shown.values()), mark, 0),), refusal


def _hidden(name: str) -> bool:
    """As in a folder: temporary files of those who copy. `.` and `..` are no files, and refused."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _refusal(names: Mapping[str, Blob]) -> str | None:
    if len(names) > MAX_FILES:
        return f"it has more than {MAX_FILES} files"
    for name in names:
        if not fits(name) or not name.isprintable() or _UNSAFE & set(name):
            return "a file's name is too long, leads elsewhere, or has characters that are refused"
        if name.count("/") > MAX_DEPTH:
            return f"its folders nest deeper than {MAX_DEPTH}"
        while "/" in name:
            name = name.rpartition("/")[0]  # noqa: PLW2901 - its folders
            if name in names:
                return "a file's name is a folder's as well"
    return None
