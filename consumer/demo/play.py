"""The demo from beginning to end; whatever was started is stopped on the way out, however that comes."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from consumer.delivery.topics import create_topics
from consumer.demo.exchange import Outcomes, publish
from consumer.demo.processes import Process, serving, wait_until_ready
from consumer.demo.report import Job, Report, build
from consumer.exits import Exit, FatalError
from consumer.local import LocalKafka
from consumer.models.edit import add_version
from consumer.progress import Progress
from consumer.settings import Settings
from consumer.stores import open_options, opener_of
from schemas.codec import encode_request
from schemas.messages import ContentType, Request, Tensor
from schemas.reasons import Reason

if TYPE_CHECKING:
    from consumer.demo.data import Trained

PROCESSES = 2
PARTITIONS = 4
MEASURE_S = 0.2  # what each model gets to show its latency
CLOSE_S = 5.0
_LOOK_S = 0.5


def play(progress: Progress, *, keep: bool, on_report: Callable[[Report], None]) -> Report:
    """Run the demo, hand over its report, and give it; with `keep` only after Ctrl-C.

    Raises FatalError where it cannot be played to its end: no broker, a consumer that does not start, no answers.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="loadonce-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        # Kafka's default: members that start together get their shares at once, not in several rebalances.
        together = {"group.initial.rebalance.delay.ms": "3000"}
        kafka = stack.enter_context(LocalKafka(config=together, on_progress=progress.tell))
        # Not what this shell's LOADONCE_* say: they may name a broker that is in use.
        store = folder / "models"
        settings = Settings.model_construct(
            bootstrap_servers=tuple(kafka.bootstrap_servers.split(",")), model_store=store, disk_cache=folder / "opened"
        )
        create_topics(settings, partitions=PARTITIONS, replication_factor=1)
        trained = _trained(folder, progress)
        with progress.busy("adding the models to a store: loadonce models add"):
            store.mkdir()
            opener = opener_of(settings, open_options(settings))
            stack.callback(lambda: opener.close(CLOSE_S))
            for model in trained:
                add_version(store, model.key, model.path, opener=opener, measure_s=MEASURE_S)
            opener.close(CLOSE_S)  # what it has opened is in the disk cache, for the consumers
        options = {
            "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "MODEL_STORE": str(store),
            "DISK_CACHE": str(settings.disk_cache),
            "PRELOAD": ",".join(model.key for model in trained),
            "HTTP_PORT": "0",
            "LOG_FORMAT": "json",
        }
        with progress.busy(f"starting {PROCESSES} consumers: loadonce run"):
            processes = stack.enter_context(serving(PROCESSES, folder, options))
            wait_until_ready(processes, PARTITIONS)

        jobs = _jobs(trained)
        progress.tell(f"publishing {len(jobs)} jobs")
        with progress.count("published", len(jobs)) as done:
            sent = publish(settings, jobs, done)
        with closing(Outcomes(settings)) as outcomes:
            with progress.count("answered", len(sent)) as done:
                outcomes.wait_for([record.position for record in sent], done)
            exit_codes: dict[str, int | None] = {process.name: None for process in processes}
            if not keep:
                with progress.busy("stopping the consumers"):
                    exit_codes = {process.name: process.stop() for process in processes}
            report = build(
                formats={model.key: model.format for model in trained},
                sent=sent,
                outcomes=outcomes.read_to_the_end(),
                loads={process.name: process.loads() for process in processes},
                exit_codes=exit_codes,
                seconds=time.monotonic() - started,
            )
        on_report(report)
        if keep:
            _linger(progress, processes, options, trained)
    return report


def _trained(folder: Path, progress: Progress) -> "Sequence[Trained]":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks about the machine's hardware
    with progress.busy("importing TensorFlow and scikit-learn"):
        try:
            from consumer.demo.data import train  # noqa: PLC0415 - it takes seconds, and the broker comes first
        except ModuleNotFoundError as error:
            raise FatalError(
                Exit.CONFIG,
                f"the demo needs {error.name}, which is not installed; run `pip install 'loadonce[demo]'`, or "
                "`uv sync --all-extras` in a clone",
            ) from error
    with progress.busy("training three models"):
        return train(folder, progress.tell)


def _jobs(trained: "Sequence[Trained]") -> list[Job]:
    """A job for each held-out sample, and those that must fail, shuffled."""
    jobs = [*_samples(trained), *_misfits(trained)]
    random.Random(0).shuffle(jobs)  # noqa: S311 - the same order each time is the point
    return jobs


def _samples(trained: "Sequence[Trained]") -> Iterator[Job]:
    for model in trained:
        for number, (sample, label, answer) in enumerate(zip(model.samples, model.labels, model.answers, strict=True)):
            yield Job(
                f"{model.key}-{number}", model.key, _body(sample[np.newaxis]), label=int(label), answer=int(answer)
            )


def _misfits(trained: "Sequence[Trained]") -> Iterator[Job]:
    model = trained[0]
    sample = model.samples[:1]
    yield Job("misfit-1", "nobody", _body(sample), expected=Reason.UNKNOWN_MODEL, case="a model that nobody stored")
    yield Job(
        "misfit-2", model.key, _body(sample[:, 1:]), expected=Reason.BAD_INPUT, case="an image with a row missing"
    )
    yield Job("misfit-3", model.key, b"\xc1garbage", expected=Reason.BAD_BODY, case="bytes that are no msgpack")


def _body(rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    return encode_request(Request((Tensor("features", np.ascontiguousarray(rows)),)), ContentType.MSGPACK)


def _linger(
    progress: Progress, processes: Sequence[Process], options: dict[str, str], trained: "Sequence[Trained]"
) -> None:
    """Leave everything running until Ctrl-C or SIGTERM; FatalError (70) names a consumer that ends before."""
    wine = next(model for model in trained if model.key == "wine")
    features = ",".join(f"{value:g}" for value in wine.samples[0])
    progress.tell("it goes on running; in another terminal:")
    for name in ("BOOTSTRAP_SERVERS", "MODEL_STORE"):
        progress.say(f"  export LOADONCE_{name}={options[name]}")
    progress.say(f"  echo '[[{features}]]' | loadonce predict wine")
    progress.say("  loadonce tail --from-beginning --max-messages 5")
    progress.say("  loadonce models list")
    progress.tell("Ctrl-C ends it")
    try:
        while not (ends := [end for process in processes if (end := process.ended())]):
            time.sleep(_LOOK_S)
        raise FatalError(Exit.SOFTWARE, ends[0])
    except KeyboardInterrupt:
        progress.tell("stopping")
    finally:
        for process in processes:
            process.stop()
