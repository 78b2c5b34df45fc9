"""Who stays in memory, and who leaves."""

from collections.abc import Callable

import numpy as np
import pytest

from consumer.models.backend import load_tensorflow
from consumer.models.cache import Cache
from consumer.models.runtime import Loaded
from tests import savedmodels

Build = Callable[..., Loaded]
"""`model(key, version=1, nbytes=10)`"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Models that share one real session: who stays does not depend on what is computed."""
    spec = load_tensorflow().TensorSpec([None], "float32")
    same = savedmodels.save(tmp_path_factory.mktemp("same"), lambda x: {"x": x + 0.0}, x=spec)
    opened = savedmodels.session(same)

    def build(key: str, version: int = 1, nbytes: int = 10) -> Loaded:
        return savedmodels.load(same, Loaded, key=key, version=version, nbytes=nbytes, opened=opened)

    return build


class Dropped(list[tuple[str, int, str]]):
    def __call__(self, loaded: Loaded, why: str) -> None:
        self.append((loaded.key, loaded.version, why))


def cache(max_models: int = 2, max_bytes: int = 100) -> tuple[Cache, Dropped]:
    dropped = Dropped()
    return Cache(max_models, max_bytes, dropped), dropped


def keys(cached: Cache) -> list[str]:
    return [loaded.key for loaded in cached.models()]


def test_the_least_recently_used_leaves_first(model: Build) -> None:
    cached, dropped = cache()
    a, b, c = model("a"), model("b"), model("c")
    assert cached.put(a, None) == []
    assert cached.put(b, None) == []
    cached.touch(a)
    assert cached.put(c, None) == [b]
    assert keys(cached) == ["a", "c"]
    assert cached.get("b", 1) is None
    cached.sweep()
    assert dropped == [("b", 1, "evicted")]


def test_getting_is_using(model: Build) -> None:
    cached, _ = cache()
    a, b = model("a"), model("b")
    cached.put(a, None)
    cached.put(b, None)
    assert cached.get("a", 1) is a
    assert cached.put(model("c"), None) == [b]


def test_as_many_leave_as_bytes_need_and_no_more(model: Build) -> None:
    cached, _ = cache(max_models=10)
    models = [model(key, nbytes=30) for key in "abc"]
    for loaded in models:
        cached.put(loaded, None)
    assert cached.put(model("d", nbytes=60), None) == models[:2]
    assert cached.nbytes == 30 + 60 + 60  # what left counts until it is swept
    cached.sweep()
    assert cached.nbytes == 90


def test_who_is_in_use_or_pinned_stays_and_the_newcomer_waits(model: Build) -> None:
    cached, _ = cache()
    a, b, c = model("a"), model("b"), model("c")
    cached.put(a, None)
    cached.put(b, None)
    a.retain()
    cached.pinned.add(("b", 1))
    assert cached.put(c, None) == "all models are in use"
    assert keys(cached) == ["a", "b"]
    a.release()
    assert cached.put(c, None) == [a]


def test_nobody_leaves_for_a_newcomer_that_does_not_fit_even_so(model: Build) -> None:
    cached, _ = cache(max_models=10)
    a, b = model("a", nbytes=40), model("b", nbytes=40)
    cached.put(a, None)
    cached.put(b, None)
    b.retain()
    assert cached.put(model("c", nbytes=90), None) == "all models are in use"
    assert keys(cached) == ["a", "b"]


def test_too_large_beside_the_pinned_is_never(model: Build) -> None:
    cached, _ = cache()
    a = model("a", nbytes=40)
    cached.put(a, None)
    assert cached.refusal(model("b", nbytes=100), None) is None
    cached.pinned.add(("a", 1))
    assert cached.refusal(model("b", nbytes=60), None) is None
    assert "LOADONCE_CACHE_BYTES" in (cached.refusal(model("b", nbytes=61), None) or "")
    assert cached.refusal(model("a", 2, nbytes=100), a) is None  # it takes the place of the pinned one
    assert cached.refusal(model("a", 2, nbytes=100), None) is not None
    full, _ = cache(max_models=1)
    full.put(a, None)
    full.pinned.add(("a", 1))
    assert "LOADONCE_CACHE_MODELS" in (full.refusal(model("b"), None) or "")
    assert full.refusal(model("a"), None) is None


def test_a_swap_needs_no_room_for_both(model: Build) -> None:
    cached, dropped = cache(max_models=1)
    old, new = model("a", 1, nbytes=90), model("a", 2, nbytes=90)
    cached.put(old, None)
    cached.pinned.add(("a", 1))
    old.retain()
    assert cached.put(new, old) == []
    cached.drop(old, "replaced")
    cached.sweep()
    assert dropped == []  # its last batch has not left
    assert cached.nbytes == 180
    old.release()
    cached.sweep()
    assert dropped == [("a", 1, "replaced")]
    assert keys(cached) == ["a"]


def test_the_same_version_anew_takes_the_place_of_the_old(model: Build) -> None:
    cached, dropped = cache(max_models=1)
    old, new = model("a"), model("a")
    cached.put(old, None)
    assert cached.put(new, None) == []
    assert cached.get("a", 1) is new
    cached.drop(old, "withdrawn")  # it is not the one that is served any more
    assert cached.get("a", 1) is new
    cached.sweep()
    assert ("a", 1, "replaced") in dropped


def test_spares_leave_first_until_they_are_used(model: Build) -> None:
    cached, dropped = cache(max_models=3)
    a, b, c = model("a"), model("b"), model("c")
    for loaded in (a, b, c):
        cached.put(loaded, None)
    cached.spare(c)
    assert cached.put(model("d"), None) == [c]
    cached.spare(b)
    cached.touch(b)
    assert cached.put(model("e"), None) == [a]  # b is no spare any more
    cached.sweep()
    assert [key for key, *_ in dropped] == ["c", "a"]


def test_a_spare_leaves_however_young_and_with_its_last_batch_in_hand(model: Build) -> None:
    dropped = Dropped()
    cached = Cache(2, 100, dropped, min_s=100, clock=lambda: 0.0)
    a, b = model("a"), model("b")
    cached.put(a, None)
    cached.put(b, None)
    assert isinstance(cached.put(model("c"), None), str)
    b.retain()
    cached.spare(b)
    assert cached.put(model("c"), None) == [b]
    cached.sweep()
    assert dropped == []
    b.release()
    cached.sweep()
    assert dropped == [("b", 1, "evicted")]


def test_room_is_what_is_free_or_what_spares_have(model: Build) -> None:
    cached, _ = cache(max_models=2, max_bytes=100)
    a = model("a", nbytes=60)
    cached.put(a, None)
    assert cached.has_room(model("b", nbytes=40), beside_spares=True)
    assert not cached.has_room(model("b", nbytes=41), beside_spares=True)
    assert cached.has_room(model("a", nbytes=100), beside_spares=True)  # it takes its own place
    cached.spare(a)
    assert not cached.has_room(model("b", nbytes=41), beside_spares=True)
    assert cached.has_room(model("b", nbytes=100), beside_spares=False)
    cached.put(model("b"), None)
    assert not cached.has_room(model("c"), beside_spares=True)
    assert cached.has_room(model("c"), beside_spares=False)


def test_a_loaded_model_predicts_without_a_store(model: Build) -> None:
    answer = model("a").predict({"x": np.ones(2, np.float32)})
    assert answer["x"].tolist() == [1.0, 1.0]
