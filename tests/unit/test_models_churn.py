"""More models than fit, and models that come and go for long: the cache does what it says, and memory comes back."""

import random
from collections import OrderedDict
from pathlib import Path

import numpy as np

from consumer.models.backend import load_keras
from consumer.models.opening import Opener
from consumer.models.runtime import Loaded
from consumer.models.serving import Serving
from tests import models_zoo as zoo
from tests.serving import ask, serving

MODELS = 100
CACHED = 10
ASKED = 300


def model(models: Serving, key: str) -> Loaded:
    found = ask(models, key)
    assert isinstance(found, Loaded), found
    return found


def test_a_hundred_models_through_a_cache_of_ten(tmp_path: Path, opener: Opener) -> None:
    folder = zoo.put(zoo.dense(bias=1), tmp_path / "built", "m", 1, "savedmodel")
    store = tmp_path / "store"
    store.mkdir()
    for index in range(MODELS):
        zoo.publish(folder, store, f"m{index}", 1)
    chosen = random.Random(7).choices(range(MODELS), [1 / (rank + 1) for rank in range(MODELS)], k=ASKED)
    expected, lru = 0, OrderedDict[int, None]()
    for index in chosen:
        if index in lru:
            expected += 1
            lru.move_to_end(index)
        else:
            lru[index] = None
            if len(lru) > CACHED:
                lru.popitem(last=False)

    told = zoo.Told()
    models = serving(store, opener, told, poll_s=3600, cache_models=CACHED)
    hits = 0
    in_use: Loaded | None = None
    features = np.ones((2, 4), np.float32)
    try:
        for index in chosen:
            before = told.count("loaded")
            loaded = model(models, f"m{index}")
            hits += told.count("loaded") == before
            loaded.retain()  # a job in hand while the next model is loaded: it must not be evicted
            if in_use is not None:
                (output,) = in_use.predict({"features": features}).values()
                assert output.shape == (2, 3)
                in_use.release()
            in_use = loaded
            models.poll()
            assert len(models.snapshot().models) <= CACHED
            assert told.count("loaded") - told.count("dropped") <= CACHED + 1
        assert hits == expected
        assert told.count("loaded") == ASKED - expected  # one load for each miss
        assert told.count("failed") == 0
    finally:
        if in_use is not None:
            in_use.release()
        models.close(30)


def test_memory_comes_back(tmp_path: Path, opener: Opener) -> None:
    """200 loads and evictions of a 50 MB model: within 10 % of the level after the first 10."""
    keras = load_keras()
    inputs = keras.Input((2500,), name="x")
    folder = zoo.put(
        keras.Model(inputs, keras.layers.Dense(5000, name="y")(inputs)), tmp_path, "built", 1, "savedmodel"
    )
    store = tmp_path / "store"
    store.mkdir()
    for key in ("a", "b"):
        zoo.publish(folder, store, key, 1)
    told = zoo.Told()
    models = serving(store, opener, told, poll_s=3600, cache_models=1)
    x = np.ones((1, 2500), np.float32)
    levels = []
    try:
        for load in range(200):
            model(models, "ab"[load % 2]).predict({"x": x})
            if load >= 9:
                levels.append(resident())
        assert told.count("loaded") == 200
        assert told.count("dropped") >= 198
    finally:
        models.close(30)
    assert np.median(levels[-20:]) <= 1.1 * np.median(levels[:20]), levels


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
