"""The loops as the question had them, one a process: plain Python, one job after another, `model.predict` for each.

python -m benchmarks.loops BOOTSTRAP_SERVERS JOBS_TOPIC PREDICTIONS_TOPIC LOOP MODEL_FILE JOBS
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Find = Callable[[str], Any]
"""The name of a model -> a Keras model."""


def load_per_job(load: Callable[[Path], Any], folder: Path) -> Find:
    """1: the model is loaded inside the loop."""
    return lambda _name: load(folder / "model.keras")


def by_name(load: Callable[[Path], Any], folder: Path) -> Find:
    """2: the job names its model, which is loaded for it."""
    return lambda name: load(folder.parent / name / "model.keras")


def by_name_cached(load: Callable[[Path], Any], folder: Path) -> Find:
    """2, with a dict of what was loaded."""
    models: dict[str, Any] = {}

    def find(name: str) -> Any:
        if name not in models:
            models[name] = load(folder.parent / name / "model.keras")
        return models[name]

    return find


def reloaded(load: Callable[[Path], Any], folder: Path) -> Find:
    """3: the file is looked at before each job, and loaded again when its time has changed."""
    path = folder / "model.keras"
    seen: float | None = None
    model: Any = None

    def find(_name: str) -> Any:
        nonlocal seen, model
        changed = path.stat().st_mtime
        if changed != seen:
            model, seen = load(path), changed
        return model

    return find


LOOPS = {"load-per-job": load_per_job, "by-name": by_name, "by-name-dict": by_name_cached, "reload-mtime": reloaded}


def main(*arguments: str) -> None:
    """Answer the first jobs of the topic, then end."""
    servers, jobs_topic, predictions_topic, loop, model, count = arguments
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # noqa: PLC0415 - after what it reads from the environment
    import msgpack  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from kafka import KafkaConsumer, KafkaProducer  # noqa: PLC0415

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of what loading in a loop does
    find = LOOPS[loop](keras.models.load_model, Path(model).parent)
    consumer = KafkaConsumer(jobs_topic, bootstrap_servers=servers, group_id=f"{loop}-{predictions_topic}",
                             auto_offset_reset="earliest")  # fmt: skip
    producer = KafkaProducer(bootstrap_servers=servers)
    for done, message in enumerate(consumer, start=1):
        headers = dict(message.headers)
        [tensor] = msgpack.unpackb(message.value)["inputs"]
        rows = np.frombuffer(tensor["data"], "<f4").reshape(tensor["shape"])
        scores = find(headers["model-key"].decode()).predict(rows, verbose=0)
        body = msgpack.packb({"outputs": [{"name": "scores", "data": np.asarray(scores, "<f4").tobytes()}]})
        producer.send(predictions_topic, body, headers=[("correlation-id", headers["correlation-id"])])
        if done == int(count):
            break
    producer.flush()
    producer.close()
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
