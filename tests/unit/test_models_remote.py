"""URLs of remote stores, and what becomes of names that strangers gave to objects."""

import importlib.util
from pathlib import Path

import pytest

from consumer.models.disk_cache import UnsafeFolderError
from consumer.models.remote.address import Address, AddressError
from consumer.models.remote.downloads import Downloads
from consumer.models.remote.listing import fingerprint, group, version_folders
from consumer.models.remote.objects import Blob

BLOB = Blob(3, 7)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("s3://models", "models"),
        ("s3://models/", "models"),
        ("s3://models/team/a.b_c", "models/team/a.b_c"),
        ("gs://models/x", "models/x"),
        ("az://models", "models"),
    ],
)
def test_urls(url: str, root: str) -> None:
    assert Address.parse(url).root == root


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/models", "s3://"),
        ("http://host/models", "s3://"),
        ("file:///models", "s3://"),
        ("memory://models", "s3://"),
        ("s3://", "bucket"),
        ("s3:///models", "bucket"),
        ("s3://bucket:80/models", "bucket"),
        ("s3://AKIAHIDDEN:hidden@bucket/models", "credentials"),
        ("s3://bucket/models?token=hidden", "query"),
        ("s3://bucket/models#hidden", "query"),
        ("s3://bucket/../hidden", "'..'"),
        ("s3://bucket//hidden", "letters"),
        ("s3://bucket/a*", "letters"),
        ("s3://bucket/a\nb", "cannot be read"),
        ("s3://[hidden", "cannot be read"),
    ],
)
def test_urls_that_are_refused_and_not_repeated(url: str, says: str) -> None:
    with pytest.raises(AddressError, match=says.replace("'..'", "'\\.\\.'")) as refused:
        Address.parse(url)
    assert "hidden" not in str(refused.value).lower()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AddressError, match=r"pip install 'loadonce\[gcs\]'"):
        Address.parse("gs://models")


def test_a_folder_of_downloads_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(UnsafeFolderError, match="chmod go-w"):
        Downloads(shared, 1)
    Downloads(tmp_path / "new", 1)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_objects_become_models_and_versions() -> None:
    models = group(
        dict.fromkeys(
            [
                "digits/1/model.keras",
                "digits/1/variables/index",
                "digits/2",
                "digits/latest/model.keras",
                "digits/aliases.json",
                "digits/README",
                ".hidden/1/model.keras",
                "../1/model.keras",
                "/1/model.keras",
                "loose",
            ],
            BLOB,
        )
    )
    assert list(models) == ["digits"]
    assert models["digits"].folders == {"1": {"model.keras": BLOB, "variables/index": BLOB}}
    assert models["digits"].aliases == BLOB


def test_of_two_folders_of_one_version_the_shorter_counts() -> None:
    models = group(dict.fromkeys(["m/01/model.keras", "m/1/model.keras", "m/2/model.keras"], BLOB))
    folders, problems = version_folders(models["m"])
    assert folders == {1: "1", 2: "2"}
    assert problems == ["'1' and '01' are one version; '1' is used"]


def test_a_folder_without_a_model_is_no_version() -> None:
    assert fingerprint({"README": BLOB, "deeper/model.keras": BLOB, ".model.keras": BLOB}) == ((), None)


def test_hidden_files_do_not_count() -> None:
    assert fingerprint({"model.keras": BLOB, ".model.keras.part": BLOB, "a/.x/b": BLOB}) == (
        (("model.keras", 3, 7, 0),),
        None,
    )


@pytest.mark.parametrize(
    "name",
    [
        "../model.h5",
        "variables/../../x",
        "/etc/passwd",
        "variables//x",
        "variables/",
        ".",
        "a\\..\\b",
        "a\nb",
        "a\0b",
        "a\x1b[31m",
        "a\u202eb",
        "a\udc80b",
        "model.keras?versionId=1",
        "a#1",
        "a*",
        "x" * 256,
        "/".join(["x" * 200] * 6),
        "/".join("x" * 18),
        "model.keras/x",
    ],
)
def test_names_that_refuse_a_version(name: str) -> None:
    seen, refusal = fingerprint({"model.keras": BLOB, name: BLOB})
    assert refusal
    assert [entry[0] for entry in seen] == [""]  # what is refused is not named
    assert seen != fingerprint({"model.keras": Blob(3, 8), name: BLOB})[0]  # and is looked at again when it changes


def test_too_many_files_refuse_a_version() -> None:
    files = {f"assets/{number}": BLOB for number in range(10_000)}
    assert fingerprint(files | {"model.keras": BLOB})[1] == "it has more than 10000 files"
    del files["assets/0"]
    assert fingerprint(files | {"model.keras": BLOB})[1] is None
