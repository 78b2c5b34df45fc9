"""Which model answers, as the loop sees it: real models, a real store that changes, real threads."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.models import store
from consumer.models.errors import PreloadError
from consumer.models.opening import Opener
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.serving import Serving
from consumer.models.store import Catalog, Located
from schemas.reasons import Failure, Reason, Stage
from tests import models_zoo as zoo
from tests.serving import WAIT_S, Held, ask, awaited, serving, until


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of versions to put into stores: what each adds to the sum of a row tells them apart."""
    root = tmp_path_factory.mktemp("built")
    folders = {f"+{bias}": zoo.put(zoo.dense(bias=bias), root, "plus", bias, "keras") for bias in range(5)}
    folders["broken"] = root / "broken"
    shutil.copytree(folders["+0"], folders["broken"])
    (folders["broken"] / "model.keras").write_bytes(b"broken")
    folders["graph"] = zoo.put(zoo.dense(bias=7), root, "graph", 1, "savedmodel")
    return folders


class World:
    """A store, the Serving on it, and what it told."""

    def __init__(self, store: Path, built: dict[str, Path], opener: Opener) -> None:
        self.store = store
        self.built = built
        self.opener = Held(opener)
        self.told = zoo.Told()
        self._serving: Serving | None = None

    def start(self, **options: Any) -> Serving:
        self._serving = serving(self.store, self.opener, self.told, **options)
        return self._serving

    @property
    def serving(self) -> Serving:
        return self._serving or self.start()

    def close(self) -> None:
        if self._serving:
            self._serving.close(30)

    def put(self, what: str, key: str, version: int | str) -> Path:
        return zoo.publish(self.built[what], self.store, key, version)

    def alias(self, key: str, **aliases: int) -> None:
        new = self.store / key / ".new"
        new.write_text(json.dumps(aliases))
        new.replace(self.store / key / "aliases.json")

    def ask(self, key: str, version: int | None = None, alias: str | None = None) -> Loaded | Failure:
        return ask(self.serving, key, version, alias)

    def awaited(self, key: str) -> Loaded | Failure:
        return awaited(self.serving, key)

    def model(self, key: str, version: int | None = None, alias: str | None = None) -> Loaded:
        found = self.ask(key, version, alias)
        assert isinstance(found, Loaded), found
        return found

    def failure(self, key: str, version: int | None = None, alias: str | None = None) -> Failure:
        found = self.ask(key, version, alias)
        assert isinstance(found, Failure), found
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        until(self.serving, condition)

    @property
    def catalog(self) -> Catalog:
        """What the last look has seen."""
        return self.serving._versions.catalog

    def until_in_catalog(self, key: str, version: int) -> None:
        """Poll until a look has seen the version."""
        self.until(lambda: self.catalog.located(key, version) is not None)

    def serves(self, key: str, version: int) -> Callable[[], bool]:
        def condition() -> bool:
            found = self.serving.resolve(key, None, None)
            return isinstance(found, Loaded) and found.version == version

        return condition


@pytest.fixture
def world(tmp_path: Path, built: dict[str, Path], opener: Opener) -> Iterator[World]:
    store = tmp_path / "store"
    store.mkdir()
    world = World(store, built, opener)
    yield world
    world.close()


def answer(loaded: Loaded) -> float:
    return float(loaded.predict({"features": np.zeros((1, 4), np.float32)})["scores"][0, 0])


# on first need -----------------------------------------------------------------------------------------------------


def test_a_model_is_loaded_on_first_need_and_once(world: World) -> None:
    world.put("+1", "m", 1)
    assert world.serving.resolve("m", None, None) is None
    first = world.model("m")
    assert (first.key, first.version, answer(first)) == ("m", 1, 1.0)
    for _ in range(100):
        assert world.serving.resolve("m", None, None) is first
        assert world.serving.resolve("m", 1, None) is first
        world.serving.poll()
    assert world.told.count("loaded") == 1
    assert world.serving.served() == {"m": (1,)}


def test_the_highest_version_answers_and_another_when_asked_for(world: World) -> None:
    for version in (1, 2, 10):
        world.put(f"+{version % 5}", "m", version)
    world.alias("m", stable=1, canary=2)
    assert world.model("m").version == 10
    assert world.model("m", version=2).version == 2
    assert world.model("m", alias="stable").version == 1
    assert world.model("m", alias="canary").version == 2
    assert world.model("m").version == 10
    assert world.serving.served() == {"m": (1, 2, 10)}


def test_resolving_and_polling_never_wait_for_a_load(world: World) -> None:
    world.put("+1", "a", 1)
    a = world.model("a")
    world.put("graph", "b", 1)
    asked = 0
    while world.serving.resolve("b", None, None) is None:
        assert world.serving.resolve("a", None, None) is a
        world.serving.poll()
        asked += 1
    assert asked > 10


def test_unknown_model_version_and_alias(world: World) -> None:
    world.put("+1", "m", 1)
    unknown = world.failure("other")
    assert (unknown.reason, unknown.stage, unknown.attempts) == (Reason.UNKNOWN_MODEL, Stage.ROUTE, None)
    assert unknown.message == "the store has no model 'other'"
    assert world.failure("other", version=3).reason is Reason.UNKNOWN_MODEL
    assert world.failure("m", version=3).message == "model 'm' has no version 3"
    assert world.failure("m", alias="stable").message == "model 'm' has no alias 'stable'"
    world.alias("m", stable=9)
    assert "version 9" in world.failure("m", alias="stable").message
    for version, alias in ((3, None), (None, "stable"), (None, "none")):
        failure = world.failure("m", version=version, alias=alias)
        assert (failure.reason, failure.stage) == (Reason.UNKNOWN_VERSION, Stage.ROUTE)
    (world.store / "empty").mkdir()
    assert world.failure("empty").reason is Reason.UNKNOWN_VERSION


@pytest.mark.parametrize("key", ["..", "../store/m", "/etc", "m/1", ".", ""])
def test_a_name_is_never_a_path(world: World, key: str) -> None:
    world.put("+1", "m", 1)
    world.put("+1", "..m", 1)
    assert world.failure(key).reason is Reason.UNKNOWN_MODEL


def test_a_model_that_came_before_the_question_is_found_however_long_the_poll(world: World) -> None:
    serving = world.start(poll_s=3600)
    assert world.failure("m").reason is Reason.UNKNOWN_MODEL
    world.put("+1", "m", 1)
    assert world.model("m").version == 1
    assert world.failure("m", version=2).reason is Reason.UNKNOWN_VERSION
    world.put("+2", "m", 2)
    assert answer(world.model("m", version=2)) == 2.0
    world.alias("m", stable=2)
    assert world.model("m", alias="stable").version == 2
    assert serving.served() == {"m": (2,)}


def test_each_unknown_job_gets_a_look_that_begins_after_it(world: World) -> None:
    """Jobs that come while a look is under way are not answered by it."""
    serving = world.start(poll_s=3600)
    assert serving.resolve("m", None, None) is None
    assert serving.resolve("m", None, None) is None
    while "m" not in serving.poll():
        time.sleep(0.002)
    assert isinstance(serving.resolve("m", None, None), Failure)
    assert isinstance(serving.resolve("m", None, None), Failure)
    assert serving.resolve("m", None, None) is None  # one more than had asked


def test_a_look_that_began_before_the_question_does_not_answer_it(world: World) -> None:
    for index in range(1000):  # so that a look takes a while
        (world.store / f"x{index}" / "1").mkdir(parents=True)
    serving = world.start(poll_s=3600)
    world.failure("other")
    begun = serving._watcher._begun
    assert serving.resolve("another", None, None) is None
    while serving._watcher._begun == begun:
        time.sleep(0.001)
    time.sleep(0.02)  # it has listed the names by now; if not, this test shows less than it could
    world.put("+1", "m", 1)
    assert world.model("m").version == 1


def test_an_alias_that_moves_takes_its_jobs_along(world: World) -> None:
    world.put("+1", "m", 1)
    world.put("+2", "m", 2)
    world.alias("m", stable=1)
    assert world.model("m", alias="stable").version == 1
    world.alias("m", stable=2)

    def moved() -> bool:
        found = world.serving.resolve("m", None, "stable")
        return isinstance(found, Loaded) and found.version == 2

    world.until(moved)


# failures ----------------------------------------------------------------------------------------------------------


def test_a_corrupt_model_fails_at_once_and_is_remembered(world: World) -> None:
    world.put("broken", "m", 1)
    failure = world.failure("m")
    assert (failure.reason, failure.stage, failure.attempts) == (Reason.MODEL_CORRUPT, Stage.LOAD, 1)
    for _ in range(50):
        assert world.serving.resolve("m", None, None) == failure
        assert world.serving.resolve("m", 1, None) == failure
        world.serving.poll()
    assert world.told.count("failed") == 1


def test_a_corrupt_model_is_tried_again_when_its_files_change(world: World) -> None:
    folder = world.put("broken", "m", 1)
    world.failure("m")
    shutil.copy(world.built["+3"] / "model.keras", folder / "new")
    (folder / "new").replace(folder / "model.keras")
    world.until(world.serves("m", 1))
    assert answer(world.model("m")) == 3.0
    assert world.serving.snapshot().failed == ()


def test_a_corrupt_model_is_probed_at_growing_intervals(world: World) -> None:
    now = [0.0]
    world.start(load_backoff_max_s=10, clock=lambda: now[0])
    world.put("broken", "m", 1)
    failure = world.failure("m")
    for times, after in ((2, 10.5), (3, 20.5), (4, 40.5)):
        now[0] += after / 2
        for _ in range(20):
            world.serving.poll()
        assert world.told.count("failed") == times - 1
        now[0] += after / 2
        assert world.serving.resolve("m", None, None) == failure  # answered at once while it is probed
        world.until(partial(failed_so_often, world, times))


def failed_so_often(world: World, times: int) -> bool:
    return world.told.count("failed") == times


def test_the_highest_that_loads(world: World) -> None:
    world.put("+1", "m", 1)
    world.put("broken", "m", 2)
    world.put("broken", "m", 3)
    assert world.model("m").version == 1
    assert world.failure("m", version=3).reason is Reason.MODEL_CORRUPT
    assert world.told.count("failed", "m") == 2


def test_none_that_loads(world: World) -> None:
    world.put("broken", "m", 1)
    world.put("broken", "m", 2)
    assert world.failure("m").reason is Reason.MODEL_CORRUPT
    assert [(one.key, one.version) for one in world.serving.snapshot().failed] == [("m", 1), ("m", 2)]


def test_what_may_pass_is_tried_again_then_unavailable_then_forgotten(world: World) -> None:
    now = [0.0]
    world.put("+1", "m", 1)
    world.start(load_attempts=3, load_backoff_max_s=10, poll_s=3600, clock=lambda: now[0])
    world.until_in_catalog("m", 1)
    away = world.store.rename(world.store.with_name("away"))
    failure = world.failure("m")
    assert (failure.reason, failure.stage, failure.attempts) == (Reason.MODEL_UNAVAILABLE, Stage.LOAD, 3)
    assert world.serving.resolve("m", None, None) == failure
    away.rename(world.store)
    now[0] += 10.5
    assert world.model("m").version == 1


def test_a_model_whose_folder_cannot_be_read_is_unavailable_and_not_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.put("+1", "m", 1)
    listed = store._entries

    def entries(at: Path, limit: int) -> list["os.DirEntry[str]"]:
        if at == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # of the disk: no test can cause it
        return listed(at, limit)

    monkeypatch.setattr(store, "_entries", entries)
    assert world.failure("m").reason is Reason.MODEL_UNAVAILABLE
    assert world.told.count("problem", "m: version 1 cannot be read: Input/output error") == 1


def test_a_store_that_goes_away_keeps_serving_and_comes_back(world: World) -> None:
    world.put("+1", "m", 1)
    world.model("m")
    world.store.rename(world.store.with_name("gone"))
    assert world.failure("other").reason is Reason.MODEL_UNAVAILABLE
    assert world.model("m").version == 1
    world.store.with_name("gone").rename(world.store)
    assert world.failure("other").reason is Reason.UNKNOWN_MODEL
    assert sum("store cannot be read" in event[1] for event in world.told.events if event[0] == "problem") == 1


def test_a_refused_link_is_corrupt(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.built["+1"], tmp_path / "outside")
    (world.store / "m").mkdir()
    (world.store / "m" / "1").symlink_to(tmp_path / "outside")
    failure = world.failure("m")
    assert failure.reason is Reason.MODEL_CORRUPT
    assert str(tmp_path) not in failure.message


# versions that come and go -----------------------------------------------------------------------------------------


def test_a_new_version_is_loaded_beside_and_swapped_in(world: World) -> None:
    world.put("+1", "m", 1)
    old = world.model("m")
    old.retain()
    world.put("+2", "m", 2)
    seen = set()
    deadline = time.monotonic() + WAIT_S
    while 2 not in seen:
        assert time.monotonic() < deadline
        found = world.serving.resolve("m", None, None)
        assert isinstance(found, Loaded)  # never a pause
        seen.add(found.version)
        world.serving.poll()
    assert answer(old) == 1.0  # its batch goes on
    assert world.told.count("dropped") == 0
    old.release()
    world.until(lambda: world.told.count("dropped", "m", 1, "replaced") == 1)
    assert world.serving.served() == {"m": (2,)}


def test_a_replaced_version_that_an_alias_names_stays_loaded(world: World) -> None:
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    stable = world.model("m", alias="stable")
    assert world.model("m") is stable
    world.put("+2", "m", 2)
    world.until(world.serves("m", 2))
    assert world.model("m", alias="stable") is stable
    assert world.told.count("loaded", "m", 1) == 1
    assert world.told.count("dropped") == 0


def test_a_new_version_that_fails_leaves_the_old_one_serving(world: World) -> None:
    world.put("+1", "m", 1)
    old = world.model("m")
    world.put("broken", "m", 2)
    world.until(lambda: world.told.count("failed", "m", 2) == 1)
    assert world.serving.resolve("m", None, None) is old
    assert world.failure("m", version=2).reason is Reason.MODEL_CORRUPT
    world.put("+3", "m", 3)
    world.until(world.serves("m", 3))


def test_of_new_versions_the_highest_that_loads_takes_over(world: World) -> None:
    world.put("+1", "m", 1)
    world.model("m")
    world.put("broken", "m", 4)
    world.put("+3", "m", 3)
    world.until(world.serves("m", 3))


def test_changed_files_of_the_served_version_are_loaded_beside(world: World) -> None:
    folder = world.put("+1", "m", 1)
    assert answer(world.model("m")) == 1.0
    shutil.copy(world.built["+4"] / "model.keras", folder / ".new")
    (folder / ".new").replace(folder / "model.keras")

    def changed() -> bool:
        found = world.serving.resolve("m", None, None)
        assert isinstance(found, Loaded)
        return answer(found) == 4.0

    world.until(changed)
    world.until(lambda: world.told.count("dropped", "m", 1, "replaced") == 1)


def test_files_that_become_broken_leave_what_is_loaded(world: World) -> None:
    folder = world.put("+1", "m", 1)
    old = world.model("m")
    (folder / "model.keras").write_bytes(b"broken")
    world.until(lambda: world.told.count("failed", "m", 1) == 1)
    assert world.serving.resolve("m", None, None) is old


def test_files_that_change_again_while_they_are_being_loaded(world: World) -> None:
    """Each load finds the files of a later look; the last of them is what is served."""
    world.start(poll_s=0.02)
    folder = world.put("+0", "m", 1)
    assert answer(world.model("m")) == 0.0
    for bias in (1, 2, 3, 4) * 3:
        shutil.copy(world.built[f"+{bias}"] / "model.keras", folder / ".new")
        (folder / ".new").replace(folder / "model.keras")
        before = world.catalog
        world.until(lambda before=before: world.catalog is not before)  # type: ignore[misc]

    def settled() -> bool:
        found = world.serving.resolve("m", None, None)
        assert isinstance(found, Loaded)
        return answer(found) == 4.0

    world.until(settled)


def replace_files(world: World, what: str, folder: Path) -> None:
    shutil.copy(world.built[what] / "model.keras", folder / ".new")
    (folder / ".new").replace(folder / "model.keras")


def test_served_files_that_change_again_while_they_are_being_loaded(world: World) -> None:
    """The look that sees the second change comes before the load of the first has ended."""
    world.start(poll_s=0.02)
    folder = world.put("+0", "m", 1)
    world.model("m")
    world.opener.hanging.add(("m", 1))
    for what in ("+1", "+2"):
        located = world.catalog.located("m", 1)
        replace_files(world, what, folder)
        world.until(partial(other_files, world, located))
    world.opener.hanging.clear()

    def swapped() -> bool:
        found = world.serving.resolve("m", None, None)
        assert isinstance(found, Loaded)
        return answer(found) == 2.0

    world.until(swapped)


def test_files_that_change_during_their_first_load(world: World) -> None:
    """Whoever waits for the load is told to ask again."""
    world.start(poll_s=0.02)
    folder = world.put("+1", "m", 1)
    world.until_in_catalog("m", 1)
    world.opener.hanging.add(("m", 1))
    assert world.serving.resolve("m", None, None) is None
    world.serving.poll()
    located = world.catalog.located("m", 1)
    replace_files(world, "+2", folder)
    world.until(partial(other_files, world, located))
    world.opener.hanging.clear()
    found = world.awaited("m")
    assert isinstance(found, Loaded)
    assert answer(found) == 2.0


def other_files(world: World, located: Located | None) -> bool:
    return world.catalog.located("m", 1) is not located


def test_a_version_asked_for_by_number_does_not_answer_for_a_higher_one_that_loads(world: World) -> None:
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.opener.hanging.add(("m", 2))
    assert world.model("m", version=1).version == 1
    assert world.serving.resolve("m", None, None) is None
    world.opener.hanging.clear()
    assert world.model("m").version == 2


def test_a_version_that_was_evicted_answers_again_while_a_newer_one_hangs(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "m", 1)
    world.put("+1", "other", 1)
    world.model("m")
    world.opener.hanging.add(("m", 2))
    world.put("+2", "m", 2)
    world.until_in_catalog("m", 2)
    world.model("other")
    assert world.model("m").version == 1
    world.opener.hanging.clear()
    world.until(world.serves("m", 2))


def test_a_withdrawn_version_falls_back_and_then_is_unknown(world: World) -> None:
    world.put("+1", "m", 1)
    newest = world.put("+2", "m", 2)
    assert world.model("m").version == 2
    newest.rename(world.store / ".gone")
    world.until(world.serves("m", 1))
    assert world.failure("m", version=2).reason is Reason.UNKNOWN_VERSION
    (world.store / "m" / "1").rename(world.store / ".gone-too")
    world.until(lambda: world.told.count("dropped", "m", 1, "withdrawn") == 1)
    assert world.failure("m").reason is Reason.UNKNOWN_VERSION
    (world.store / "m").rmdir()
    world.until(lambda: "m" not in world.catalog.models)
    assert world.failure("m").reason is Reason.UNKNOWN_MODEL


def test_a_version_that_is_still_being_copied_is_not_served(world: World) -> None:
    world.start(poll_s=0.02)
    folder = world.store / "m" / "1"
    folder.mkdir(parents=True)
    data = (world.built["+1"] / "model.keras").read_bytes()
    with (folder / "model.keras").open("wb") as file:
        for start in range(0, len(data), len(data) // 10):
            file.write(data[start : start + len(data) // 10])
            file.flush()
            os.utime(folder / "model.keras")
            found = world.serving.resolve("m", None, None)
            world.serving.poll()
            assert not isinstance(found, Loaded)
    world.until(lambda: isinstance(world.serving.resolve("m", None, None), Loaded))
    assert answer(world.model("m")) == 1.0


# the cache ---------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_leaves_and_comes_back(world: World) -> None:
    world.start(cache_models=2)
    for key in "abc":
        world.put("+1", key, 1)
        world.model(key)
    assert world.serving.served() == {"b": (1,), "c": (1,)}
    assert world.model("a").key == "a"
    assert world.serving.served() == {"a": (1,), "c": (1,)}
    assert world.told.count("dropped", "a", 1, "evicted") == 1
    assert world.told.count("loaded", "a") == 2


def test_a_newcomer_waits_while_all_are_in_use(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "a", 1)
    world.put("+2", "b", 1)
    a = world.model("a")
    a.retain()
    world.serving.poll()
    assert world.serving.resolve("b", None, None) is None
    world.until(
        lambda: world.serving.resolve("b", None, None) is None and bool(world.serving.snapshot().waiting_for_room)
    )
    for _ in range(50):
        world.serving.poll()
        assert world.serving.resolve("b", None, None) is None
    assert world.serving.resolve("a", None, None) is a
    a.release()
    assert world.model("b").key == "b"


def test_jobs_of_more_models_than_fit_are_all_answered(world: World) -> None:
    world.start(cache_models=1)
    for key in "abcd":
        world.put("+1", key, 1)
    waiting = set("abcd")
    deadline = time.monotonic() + WAIT_S
    while waiting:
        assert time.monotonic() < deadline
        waiting = {key for key in waiting if world.serving.resolve(key, None, None) is None}
        world.serving.poll()
    assert world.told.count("loaded") <= 8


def test_a_model_that_cannot_fit_is_refused_with_a_reason(world: World) -> None:
    world.put("+1", "m", 1)
    world.start(cache_bytes=59)
    failure = world.failure("m")
    assert failure.reason is Reason.MODEL_UNAVAILABLE
    assert "the cache has room for 59" in failure.message


def test_a_newcomer_waits_until_somebody_has_been_there_long_enough(world: World) -> None:
    now = [0.0]
    world.start(cache_models=1, cache_min_s=100, clock=lambda: now[0])
    world.put("+1", "a", 1)
    world.put("+2", "b", 1)
    a = world.model("a")
    world.until(lambda: world.serving.resolve("b", None, None) is None and world.told.count("waiting", "b", 1) == 1)
    now[0] += 50
    for _ in range(50):
        world.serving.poll()
    assert world.serving.resolve("b", None, None) is None
    assert world.serving.resolve("a", None, None) is a
    assert world.serving.snapshot().waiting_for_room == (("b", 1),)
    assert world.told.count("waiting") == 1
    now[0] += 51
    assert world.model("b").key == "b"
    assert world.told.count("dropped", "a", 1, "evicted") == 1


def test_a_swap_does_not_wait_behind_a_newcomer_that_waits_for_room(world: World) -> None:
    world.start(cache_models=1, cache_min_s=600)
    for key in "abc":
        world.put("+1", key, 1)
        world.until_in_catalog(key, 1)
    world.model("a")
    world.until(lambda: world.serving.resolve("b", None, None) is None and world.told.count("waiting", "b", 1) == 1)
    assert world.serving.resolve("c", None, None) is None
    world.put("+2", "a", 2)
    world.until(world.serves("a", 2))
    assert world.serving.snapshot().waiting_for_room == (("b", 1),)
    assert world.serving.snapshot().loading == (("c", 1),)  # in line: it would only wait, too


def test_a_version_that_loads_when_probed_but_finds_no_room_is_loaded_when_asked_for(world: World) -> None:
    now = [0.0]
    world.start(cache_models=1, load_backoff_max_s=10, clock=lambda: now[0])
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.opener.too_long.add(("m", 1))
    assert world.model("m").version == 2
    assert world.failure("m", version=1).reason is Reason.MODEL_UNAVAILABLE
    world.opener.too_long.clear()
    now[0] += 11
    world.until(lambda: world.told.count("abandoned", "m", 1) == 1)
    assert world.serving.snapshot().failed == ()
    assert world.model("m", version=1).version == 1


# policies ----------------------------------------------------------------------------------------------------------


def policies(*parts: str) -> dict[str, Any]:
    return {"policies": Policies.parse(parts)}


def test_a_pinned_version_answers_and_others_when_asked_for(world: World) -> None:
    world.start(**policies("m=pinned:1"))
    world.put("+1", "m", 1)
    world.put("+2", "m", 2)
    assert world.model("m").version == 1
    assert world.model("m", version=2).version == 2
    assert world.model("m").version == 1
    world.put("+3", "m", 3)
    world.until_in_catalog("m", 3)
    assert world.model("m").version == 1
    assert world.told.count("served") == 1


def test_a_pinned_version_that_is_not_there_is_unknown_until_it_comes(world: World) -> None:
    world.start(**policies("pinned:2"))
    world.put("+1", "m", 1)
    world.until_in_catalog("m", 1)
    failure = world.failure("m")
    assert failure.reason is Reason.UNKNOWN_VERSION
    assert "pinned:2" in failure.message
    world.put("+2", "m", 2)
    assert world.model("m").version == 2


def test_the_policy_of_an_alias_follows_it_once_it_has_loaded(world: World) -> None:
    world.start(**policies("m=stable"))
    for version in (1, 2, 3):
        world.put(f"+{version}", "m", version)
    broken = world.put("broken", "m", 4)
    world.alias("m", stable=1)
    assert world.model("m").version == 1
    world.alias("m", stable=4)
    world.until(lambda: world.told.count("failed", "m", 4) == 1)
    assert world.model("m").version == 1
    world.alias("m", stable=2)
    world.until(world.serves("m", 2))
    world.alias("m", stable=1)  # moved back
    world.until(world.serves("m", 1))
    assert broken.exists()


def test_an_alias_that_is_removed_takes_its_policys_version_along_and_brings_it_back(world: World) -> None:
    world.start(**policies("stable"))
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.alias("m", stable=1)
    batch = world.model("m")
    assert world.model("m", alias="stable") is batch
    batch.retain()
    world.alias("m")
    world.until(lambda: world.told.count("none served", "m", 1) == 1)
    failure = world.failure("m")
    assert failure.reason is Reason.UNKNOWN_VERSION
    assert "its policy, stable, allows" in failure.message
    assert answer(batch) == 1.0
    assert world.told.count("dropped") == 0
    batch.release()
    world.until(lambda: world.told.count("dropped", "m", 1, "withdrawn") == 1)
    world.alias("m", stable=2)
    assert world.model("m").version == 2


def test_an_alias_that_is_removed_leaves_the_version_to_other_aliases(world: World) -> None:
    world.start(**policies("stable"))
    world.put("+1", "m", 1)
    world.alias("m", stable=1, canary=1)
    canary = world.model("m", alias="canary")
    assert world.model("m") is canary
    world.alias("m", canary=1)
    world.until(lambda: world.told.count("none served", "m", 1) == 1)
    assert world.failure("m").reason is Reason.UNKNOWN_VERSION
    assert world.model("m", alias="canary") is canary


def test_a_pinned_version_that_goes_is_unknown_although_there_are_others(world: World) -> None:
    world.start(**policies("pinned:2"))
    world.put("+1", "m", 1)
    folder = world.put("+2", "m", 2)
    world.until_in_catalog("m", 1)
    assert world.model("m").version == 2
    folder.rename(world.store / ".gone")
    world.until(lambda: world.told.count("none served", "m", 2) == 1)
    assert world.failure("m").reason is Reason.UNKNOWN_VERSION
    (world.store / ".gone").rename(folder)
    assert world.model("m").version == 2


def test_an_alias_that_moves_to_what_is_not_there_leaves_the_version_that_it_was(world: World) -> None:
    world.start(**policies("stable"))
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    world.model("m")
    world.alias("m", stable=9)
    world.until(lambda: world.catalog.models["m"].aliases == {"stable": 9})
    assert world.model("m").version == 1


def evict_m(world: World) -> None:
    """In a cache for one."""
    world.put("+1", "other", 1)
    world.model("other")
    assert world.serving.served() == {"other": (1,)}


@pytest.mark.parametrize("policy", ["stable", "latest"])
@pytest.mark.parametrize("moved_to", ["what is broken", "what is not there"])
def test_an_eviction_does_not_change_what_an_alias_means(world: World, policy: str, moved_to: str) -> None:
    world.start(cache_models=1, **policies("latest", f"m={policy}"))
    alias = None if policy == "stable" else "stable"
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    assert world.model("m", alias=alias).version == 1
    if moved_to == "what is broken":
        world.put("broken", "m", 9)
        world.until_in_catalog("m", 9)
    world.alias("m", stable=9)
    world.until(lambda: world.catalog.models["m"].aliases == {"stable": 9})
    if moved_to == "what is broken":
        world.until(lambda: world.told.count("failed", "m", 9) == 1)
    evict_m(world)
    assert world.model("m", alias=alias).version == 1


def test_the_version_of_an_alias_that_was_removed_does_not_come_back_once_evicted(world: World) -> None:
    world.start(cache_models=1, **policies("latest", "m=stable"))
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    world.model("m")
    evict_m(world)
    world.alias("m")
    world.until(lambda: not world.catalog.models["m"].aliases)
    assert world.failure("m").reason is Reason.UNKNOWN_VERSION
    world.alias("m", stable=9)
    world.until(lambda: world.catalog.models["m"].aliases == {"stable": 9})
    assert world.failure("m").reason is Reason.UNKNOWN_VERSION


def test_what_a_policy_keeps_takes_nobodys_place_once_its_model_was_evicted(world: World) -> None:
    world.start(cache_models=2, **policies("latest", "m=latest:2"))
    for key in "xy":
        world.put("+1", key, 1)
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.opener.hanging.add(("m", 1))
    assert world.model("m").version == 2
    for key in "xy":
        world.model(key)
    world.opener.hanging.clear()
    world.until(lambda: world.told.count("abandoned", "m", 1) + world.told.count("loaded", "m", 1) == 1)
    assert world.serving.served() == {"x": (1,), "y": (1,)}


def test_as_many_of_the_latest_stay_loaded_as_the_policy_says(world: World) -> None:
    world.start(**policies("latest:2"))
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    assert world.model("m").version == 2
    world.until(lambda: world.serving.served() == {"m": (1, 2)})
    world.put("+3", "m", 3)
    world.until(lambda: world.serving.served() == {"m": (2, 3)})
    world.until(lambda: world.told.count("dropped", "m", 1, "replaced") == 1)
    assert world.model("m").version == 3


def test_all_versions_are_loaded(world: World) -> None:
    world.start(**policies("latest", "m=all"))
    for version in (1, 2, 3):
        world.put(f"+{version}", "m", version)
        world.put(f"+{version}", "other", version)
    for key in ("m", "other"):
        world.until_in_catalog(key, 3)
    assert world.model("m").version == 3
    assert world.model("other").version == 3
    world.until(lambda: world.serving.served() == {"m": (1, 2, 3), "other": (3,)})


# aliases -----------------------------------------------------------------------------------------------------------


def test_an_alias_moves_only_to_a_version_that_loaded(world: World) -> None:
    for what, version in (("+1", 1), ("broken", 2), ("+3", 3)):
        world.put(what, "m", version)
    world.alias("m", stable=1)
    old = world.model("m", alias="stable")
    world.alias("m", stable=2)
    world.until(lambda: world.told.count("failed", "m", 2) == 1)
    assert world.serving.resolve("m", None, "stable") is old
    world.alias("m", stable=3)
    world.until(lambda: world.told.count("alias", "m", "stable", 3) == 1)
    assert world.model("m", alias="stable").version == 3
    assert world.failure("m", version=2).reason is Reason.MODEL_CORRUPT


def test_an_alias_that_is_removed_is_unknown(world: World) -> None:
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    world.model("m", alias="stable")
    world.alias("m")
    world.until(lambda: world.told.count("alias", "m", "stable", None) == 1)
    assert world.failure("m", alias="stable").reason is Reason.UNKNOWN_VERSION


def test_a_refresh_looks_at_once(world: World) -> None:
    serving = world.start(poll_s=3600)
    world.put("+1", "m", 1)
    world.model("m")
    world.put("+2", "m", 2)
    serving.refresh()
    world.until(world.serves("m", 2))


def test_jobs_of_a_model_that_goes_while_its_load_is_queued_are_told(world: World) -> None:
    world.start(cache_models=1, cache_min_s=600)
    for key in "abc":
        world.put("+1", key, 1)
    world.model("a")
    for key in "bc":
        world.until_in_catalog(key, 1)
    world.until(lambda: world.serving.resolve("b", None, None) is None and world.told.count("waiting", "b", 1) == 1)
    assert world.serving.resolve("c", None, None) is None  # queued: b waits for room
    shutil.rmtree(world.store / "c")
    found = world.awaited("c")
    assert isinstance(found, Failure)
    assert found.reason is Reason.UNKNOWN_MODEL


def loaded_versions(world: World) -> set[tuple[str, int, bool]]:
    return {(one.key, one.version, one.current) for one in world.serving.snapshot().models}


def quiet(world: World) -> bool:
    return not world.serving.snapshot().loading and not world.serving.snapshot().waiting_for_room


def test_of_more_kept_versions_than_fit_the_highest_stay_and_none_is_loaded_again(world: World) -> None:
    world.start(cache_models=2, **policies("all"))
    for version in (1, 2, 3, 4):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 4)
    assert world.model("m").version == 4
    world.until(lambda: world.told.count("abandoned", "m") == 2)
    for _ in range(300):
        world.serving.poll()
        assert isinstance(world.serving.resolve("m", None, None), Loaded)
    assert loaded_versions(world) == {("m", 4, True), ("m", 3, False)}
    assert world.told.count("loaded") == 2
    assert world.told.count("abandoned") == 2
    assert world.model("m", version=1).version == 1  # a job asks for it: that is another matter


@pytest.mark.parametrize("policy", ["all", "latest:2"])
def test_what_a_policy_keeps_never_costs_another_model_the_version_that_answers(world: World, policy: str) -> None:
    world.start(cache_models=2, **policies("latest", f"m={policy}"))
    world.put("+1", "other", 1)
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.model("other")
    assert world.model("m").version == 2
    world.until(lambda: world.told.count("abandoned", "m", 1) == 1)
    world.put("+3", "m", 3)  # 2 is kept from now on, if there is room: there is none
    world.until(world.serves("m", 3))
    world.until(partial(quiet, world))
    assert loaded_versions(world) == {("m", 3, True), ("other", 1, True)}
    assert world.told.count("loaded", "other") == 1


def test_what_a_policy_keeps_makes_room_before_what_answers(world: World) -> None:
    """However young it is, and although the other was not used for longer."""
    now = [0.0]
    world.start(cache_models=3, cache_min_s=100, clock=lambda: now[0], **policies("latest", "m=latest:2"))
    world.put("+1", "other", 1)
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.model("other")
    now[0] += 101
    world.model("m")
    world.until(lambda: len(loaded_versions(world)) == 3)
    world.put("+1", "third", 1)
    world.model("third")
    assert loaded_versions(world) == {("m", 2, True), ("other", 1, True), ("third", 1, True)}


def test_a_rollout_in_a_cache_that_just_holds_what_the_policy_keeps(world: World) -> None:
    world.start(cache_models=2, **policies("latest:2"))
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.model("m").retain()  # a batch that is in hand all the while
    world.until(lambda: len(loaded_versions(world)) == 2)
    world.put("+3", "m", 3)
    world.until(world.serves("m", 3))
    world.until(partial(quiet, world))
    assert loaded_versions(world) == {("m", 3, True), ("m", 2, False)}
    assert world.told.count("loaded", "m", 2) == 1


def test_a_preloaded_model_that_comes_back_is_loaded_again(world: World) -> None:
    folder = world.put("+1", "m", 1)
    world.serving.preload(["m"], WAIT_S)
    folder.rename(world.store / ".gone")
    world.until(lambda: world.told.count("dropped", "m", 1, "withdrawn") == 1)
    (world.store / ".gone").rename(folder)
    world.until(lambda: [(one.current, one.pinned) for one in world.serving.snapshot().models] == [(True, True)])


def test_an_alias_on_a_corrupt_version_goes_on_although_the_old_one_was_evicted(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "m", 1)
    world.put("broken", "m", 2)
    world.put("+1", "other", 1)
    world.alias("m", stable=1)
    world.model("m", alias="stable")
    world.alias("m", stable=2)
    world.until(lambda: world.told.count("failed", "m", 2) == 1)
    world.model("other")
    assert world.serving.served() == {"other": (1,)}
    assert world.model("m", alias="stable").version == 1


def test_a_withdrawn_version_is_not_waited_for(world: World) -> None:
    """Its retries end when it goes, not after all attempts; and that is told."""
    world.start(load_attempts=1000, load_backoff_s=300)
    world.put("+1", "m", 1)
    world.put("+2", "m", 0)
    world.until_in_catalog("m", 1)
    away = world.store.rename(world.store.with_name("away"))
    assert world.serving.resolve("m", 1, None) is None
    world.until(lambda: world.told.count("attempt", "m", 1) == 1)
    shutil.rmtree(away / "m" / "1")
    away.rename(world.store)
    assert world.failure("m", version=1).reason is Reason.UNKNOWN_VERSION
    world.until(lambda: world.told.count("abandoned", "m", 1, "the store has it no more") == 1)
    assert world.serving.snapshot().loading == ()


def test_a_version_withdrawn_once_it_had_loaded_is_told(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "a", 1)
    folder = world.put("+2", "b", 1)
    world.model("a").retain()
    world.until_in_catalog("b", 1)
    assert world.serving.resolve("b", None, None) is None
    world.until(lambda: world.told.count("waiting", "b", 1) == 1)
    shutil.rmtree(folder.parent)
    found = world.awaited("b")
    assert isinstance(found, Failure)
    assert found.reason is Reason.UNKNOWN_MODEL
    assert world.told.count("abandoned", "b", 1, "the store has it no more") == 1
    assert world.told.count("loaded", "b") == 0


# preloading --------------------------------------------------------------------------------------------------------


def test_preloaded_models_are_there_and_never_leave(world: World) -> None:
    world.start(cache_models=2)
    for key in "abc":
        world.put("+1", key, 1)
    world.serving.preload(["a"], WAIT_S)
    a = world.serving.resolve("a", None, None)
    assert isinstance(a, Loaded)
    for key in "bcbc":
        world.model(key)
    assert world.serving.resolve("a", None, None) is a
    assert [status.pinned for status in world.serving.snapshot().models] == [True, False]
    world.put("+2", "a", 2)
    world.until(world.serves("a", 2))
    for key in "bcbc":
        world.model(key)
    assert world.told.count("dropped", "a", 2) == 0


def test_a_preloaded_version_with_an_alias_is_swapped_in_a_cache_without_room_for_both(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    world.serving.preload(["m"], WAIT_S)
    world.put("+2", "m", 2)
    world.until(lambda: world.told.count("failed", "m", 2) == 1 or world.serves("m", 2)())
    assert world.model("m").version == 2
    assert [(one.version, one.pinned) for one in world.serving.snapshot().models] == [(2, True)]


def test_a_preloaded_version_with_an_alias_is_swapped_while_all_others_are_in_use(world: World) -> None:
    world.start(cache_models=2)
    world.put("+1", "m", 1)
    world.put("+1", "other", 1)
    world.alias("m", stable=1)
    world.serving.preload(["m"], WAIT_S)
    world.model("other").retain()
    world.put("+2", "m", 2)
    world.until(lambda: world.told.count("waiting", "m", 2) == 1 or world.serves("m", 2)())
    assert world.serving.served() == {"m": (2,), "other": (1,)}


def test_a_preload_ends_with_the_best_that_loads(world: World) -> None:
    for version in (1, 2):
        world.put(f"+{version}", "m", version)
    world.until_in_catalog("m", 2)
    world.model("m", version=1)
    world.serving.preload(["m"], WAIT_S)
    assert [(one.version, one.pinned) for one in world.serving.snapshot().models] == [(1, False), (2, True)]


def test_a_preloaded_model_that_nobody_answers_for_is_missing(world: World) -> None:
    world.start(**policies("stable"))
    world.put("+1", "m", 1)
    world.alias("m", stable=1)
    world.serving.preload(["m"], WAIT_S)
    assert world.serving.snapshot().missing == ()
    world.alias("m")
    world.until(lambda: world.told.snapshot.missing == ("m",))
    assert [status.pinned for status in world.serving.snapshot().models] == []
    world.alias("m", stable=1)
    world.until(lambda: world.told.snapshot.missing == ())


def test_a_preload_that_cannot_succeed(world: World) -> None:
    world.put("+1", "good", 1)
    world.put("broken", "bad", 1)
    with pytest.raises(PreloadError) as caught:
        world.serving.preload(["good", "bad"], WAIT_S)
    assert caught.value.name == "bad"
    assert caught.value.failure.reason is Reason.MODEL_CORRUPT
    with pytest.raises(PreloadError) as caught:
        world.serving.preload(["good", "none"], WAIT_S)
    assert caught.value.failure.reason is Reason.UNKNOWN_MODEL


def test_a_preload_takes_no_longer_than_it_may(world: World) -> None:
    world.put("+1", "m", 1)
    world.start(load_attempts=1000, load_backoff_s=300, poll_s=3600)
    world.until_in_catalog("m", 1)
    world.store.rename(world.store.with_name("away"))
    with pytest.raises(PreloadError) as caught:
        world.serving.preload(["m"], 1.0)
    assert "not loaded within 1 s" in caught.value.failure.message


def test_a_preloaded_model_that_falls_back_stays_preloaded(world: World) -> None:
    world.put("+1", "m", 1)
    newest = world.put("+2", "m", 2)
    world.start(cache_models=2)
    world.serving.preload(["m"], WAIT_S)
    newest.rename(world.store / ".gone")
    world.until(
        lambda: [(s.version, s.current, s.pinned) for s in world.serving.snapshot().models] == [(1, True, True)]
    )


def test_another_version_beside_a_preloaded_one_that_fills_the_cache_is_refused(world: World) -> None:
    world.start(cache_models=1)
    world.put("+1", "m", 1)
    world.put("+2", "m", 2)
    world.until_in_catalog("m", 2)
    world.serving.preload(["m"], WAIT_S)
    failure = world.failure("m", version=1)
    assert failure.reason is Reason.MODEL_UNAVAILABLE
    assert "LOADONCE_CACHE_MODELS" in failure.message
    assert world.model("m").version == 2


def test_a_snapshot_says_what_is_there(world: World) -> None:
    world.put("+1", "m", 1)
    world.put("graph", "m", 2)
    world.put("broken", "b", 1)
    world.model("m")
    world.model("m", version=1).retain()
    world.failure("b")
    world.serving.poll()
    snapshot = world.serving.snapshot()
    assert [(s.key, s.version, s.format, s.in_use, s.current) for s in snapshot.models] == [
        ("m", 1, "keras", 1, False),
        ("m", 2, "savedmodel", 0, True),
    ]
    assert [(one.key, one.version, one.permanent) for one in snapshot.failed] == [("b", 1, True)]
