"""The disk cache: whole entries or none, a bound, and several processes that share it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.models.disk_cache import DiskCache, UnsafeFolderError

A, B, C = (letter * 64 for letter in "abc")
MB = 1_000_000


def fill(cache: DiskCache, entry: str, nbytes: int = 10) -> None:
    with cache.make(entry) as making:
        (making.folder / "deep").mkdir()
        (making.folder / "deep" / "file").write_bytes(bytes(nbytes))
        making.publish()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def has(cache: DiskCache, entry: str) -> bool:
    with cache.get(entry) as folder:
        return folder is not None


def age(root: Path, *entries: str) -> None:
    """Used long ago, in this order."""
    for place, entry in enumerate(entries):
        os.utime(root / "entries" / entry, (place, place))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_was_published_is_there_for_others_too(root: Path) -> None:
    cache = DiskCache(root, MB)
    assert not has(cache, A)
    fill(cache, A)
    with DiskCache(root, MB).get(A) as folder:
        assert folder is not None
        assert (folder / "deep" / "file").read_bytes() == bytes(10)
    assert cache.nbytes() == 10


def test_nothing_is_there_before_it_is_published(root: Path) -> None:
    cache = DiskCache(root, MB)
    with cache.make(A) as making:
        (making.folder / "file").touch()
        assert not has(cache, A)
        making.publish()
        assert has(cache, A)


def test_what_is_not_published_leaves_nothing(root: Path) -> None:
    cache = DiskCache(root, MB)
    with pytest.raises(ZeroDivisionError), cache.make(A) as making:
        (making.folder / "file").touch()
        raise ZeroDivisionError
    assert list((root / "work").iterdir()) == []
    assert not has(cache, A)


def test_the_least_recently_used_leave_until_the_rest_fits(root: Path) -> None:
    cache = DiskCache(root, 3 * MB)
    for entry in (A, B, C):
        fill(cache, entry, MB)
    age(root, A, B, C)
    assert has(cache, A)  # and is the latest now
    fill(cache, "d" * 64, MB)
    assert [has(cache, entry) for entry in (A, B, C, "d" * 64)] == [True, False, True, True]


def test_room_is_made_before_what_is_known_to_come(root: Path) -> None:
    cache = DiskCache(root, 2 * MB)
    fill(cache, A, MB)
    fill(cache, B, MB)
    age(root, A, B)
    with cache.make(C, nbytes=MB):
        assert not has(cache, A)
        assert has(cache, B)


def test_what_is_in_use_stays(root: Path) -> None:
    cache = DiskCache(root, MB)
    fill(cache, A, MB)
    with cache.get(A) as folder:
        fill(DiskCache(root, MB), B, MB)
        cache.drop(A)
        assert folder is not None
        assert (folder / "deep" / "file").exists()
    cache.drop(A)
    assert not has(cache, A)


@pytest.mark.parametrize("kind", ["file", "fifo", "link", "broken link"])
def test_what_is_no_folder_makes_room_for_the_entry(root: Path, tmp_path: Path, kind: str) -> None:
    cache = DiskCache(root, MB)
    place = root / "entries" / A
    match kind:
        case "file":
            place.touch()
        case "fifo":
            os.mkfifo(place)
        case "link":
            place.symlink_to(tmp_path)
        case _:
            place.symlink_to("nowhere")
    assert not has(cache, A)
    for _ in range(2):
        fill(cache, A)
        assert has(cache, A)
        assert not place.is_symlink()
    assert list((root / "work").iterdir()) == []
    assert tmp_path.is_dir()


@pytest.mark.parametrize("gone", ["", "entries", "work"])
def test_a_cache_that_was_removed_is_made_again(root: Path, gone: str) -> None:
    cache = DiskCache(root, 15)
    fill(cache, A)
    shutil.rmtree(root / gone)
    assert has(cache, A) is (gone == "work")
    cache.drop(A)
    assert cache.nbytes() == 0
    fill(cache, B)
    assert has(cache, B)
    assert root.stat().st_mode & 0o777 == 0o700


def test_an_entry_larger_than_the_cache_can_be_used_once(root: Path) -> None:
    cache = DiskCache(root, 5)
    with cache.make(A) as making:
        (making.folder / "file").write_bytes(bytes(10))
        folder = making.publish()
        assert (folder / "file").exists()
    assert not has(cache, A)


def test_of_two_that_make_the_same_entry_both_can_use_it(root: Path) -> None:
    one, other = DiskCache(root, MB), DiskCache(root, MB)
    with one.make(A) as mine, other.make(A) as theirs:
        for making in (mine, theirs):
            (making.folder / "file").write_text("same")
        assert (mine.publish() / "file").read_text() == "same"
        assert (theirs.publish() / "file").read_text() == "same"
    assert has(one, A)
    assert list((root / "work").iterdir()) == []


def test_leftovers_of_the_dead_go_and_the_work_of_the_living_stays(root: Path) -> None:
    cache = DiskCache(root, MB)
    code = (
        "import os, pathlib, sys; from consumer.models.disk_cache import DiskCache\n"
        f"with DiskCache(pathlib.Path({str(root)!r}), 10).make({B!r}) as making:\n"
        "    (making.folder / 'half').touch(); os._exit(7)"
    )
    with cache.make(A) as making:
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7
        assert len(list((root / "work").iterdir())) == 2
        DiskCache(root, MB)
        assert list((root / "work").iterdir()) == [making.folder]


def test_the_folder_is_for_its_owner_alone(root: Path) -> None:
    DiskCache(root, MB)
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_write_to_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o775)
    with pytest.raises(UnsafeFolderError, match="chmod go-w"):
        DiskCache(root, MB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, -1)
    with pytest.raises(UnsafeFolderError, match="another user"):
        DiskCache(root, MB)


@pytest.mark.parametrize("name", ["..", "../" + A, A.upper(), A + "\n", ""])
def test_an_id_is_a_digest(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="sha256"), DiskCache(root, MB).get(name):
        pass


def test_no_descriptor_stays_open(root: Path) -> None:
    cache = DiskCache(root, 25)
    before = descriptors()
    for entry in (A, B, C, A, B, C):
        fill(cache, entry)
        has(cache, entry)
        cache.drop(entry)
    assert descriptors() == before
