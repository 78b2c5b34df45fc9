"""The composition root: builds the parts from the settings, owns their lifetimes, runs the loop."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from consumer.collector import Collector
from consumer.deadline import Deadline
from consumer.delivery.acknowledged import AcknowledgedSink
from consumer.delivery.caution import Caution
from consumer.delivery.connection import require_fast_crc
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import Sink
from consumer.delivery.source import Source
from consumer.delivery.topics import check_topics
from consumer.delivery.transactions import TransactionalSink
from consumer.exits import Exit, FatalError
from consumer.inference import Inference
from consumer.loop import Loop
from consumer.models.engine import EngineUnavailableError, open_library
from consumer.models.errors import PreloadError
from consumer.models.serving import Serving
from consumer.observe import http, logs
from consumer.observe.metrics import Metrics
from consumer.observe.status import Status
from consumer.observe.told import LoopTold, ModelsTold
from consumer.pipeline.parking import Parking
from consumer.settings import Settings, named
from consumer.stop import Stop, StoppedWhileStartingError
from consumer.stores import open_options, opener_of, store_of
from consumer.watchdog import Watchdog

# Preloading ends with the loader's own retries; this bounds a store or a model that does not answer at all.
PRELOAD_S = 600.0
CLOSE_S = 3.0  # for all parts together, after DRAIN_S
STALL_GRACE_S = 5.0  # between the failing of /livez and the end of a process whose model does not return


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process is made of, where somebody may want another: the tests of faults end processes in the midst of
    what these do."""

    offsets: Callable[[], Offsets] = Offsets
    parking: Callable[[], Parking] = Parking
    inference: Callable[[Callable[[], float]], Inference] = Inference
    serving: Callable[..., Serving] = Serving
    source: Callable[[Settings, str, Offsets], Source] = Source
    acknowledged: Callable[..., Sink] = AcknowledgedSink
    transactions: Callable[..., Sink] = TransactionalSink


def run(
    settings: Settings, stop: Stop, parts: Parts = Parts(), on_listening: Callable[[int], object] = lambda _port: None
) -> Exit:
    """Serve until `stop`. FatalError says in one line why that cannot be, or can no longer be.

    `on_listening` is told the port of the HTTP endpoint.
    """
    logs.configure(settings.log_format, settings.log_level)
    try:
        _serve(settings, stop, parts, on_listening)
    except StoppedWhileStartingError:
        logs.logger().info("stopped before the loop began")
    return Exit.OK


def _open_tensorflow() -> None:
    try:
        open_library()
    except EngineUnavailableError as error:
        raise FatalError(Exit.CONFIG, str(error)) from None


def _end(why: str) -> None:
    """From the watchdog's thread: nothing of this process can be waited for any more."""
    logs.logger().critical("stuck", why=why, then="the process ends; its jobs are read again")
    os._exit(Exit.STUCK)


def _serve(settings: Settings, stop: Stop, parts: Parts, on_listening: Callable[[int], object]) -> None:
    require_fast_crc()
    if isinstance(settings.model_store, Path) and not settings.model_store.is_dir():
        raise FatalError(
            Exit.STORE_MISSING, f"{named(settings, 'model_store')}: no such folder; `loadonce models add` makes one"
        )
    store = store_of(settings)
    name = f"{socket.gethostname()}-{os.getpid()}"
    clock = time.monotonic
    log = logs.logger()
    log.info("starting", consumer=name, store=str(settings.model_store), group=settings.group_id)
    check_topics(settings, serving=True)  # before TensorFlow is imported: what cannot work is said at once
    status = Status(clock, settings.stall_s)
    metrics = Metrics(status)
    closing = Deadline(clock, CLOSE_S)
    with ExitStack() as stack:
        port = stack.enter_context(
            http.serving(status, metrics, stop.refresh.ask, settings.http_host, settings.http_port)
        )
        log.info("http listening", host=settings.http_host, port=port)
        on_listening(port)
        _open_tensorflow()
        opener = opener_of(settings, open_options(settings))
        stack.callback(lambda: opener.close(closing.left))
        serving = parts.serving(
            store,
            opener,
            policies=settings.policies,
            poll_s=settings.store_poll_s,
            cache_models=settings.cache_models,
            cache_bytes=settings.cache_bytes,
            cache_min_s=settings.cache_min_s,
            load_attempts=settings.load_attempts,
            load_backoff_s=settings.load_backoff_s,
            load_backoff_max_s=settings.load_backoff_max_s,
            events=ModelsTold(status, metrics.models),
            clock=clock,
        )
        stack.callback(lambda: serving.close(closing.left))
        try:
            serving.preload(settings.models_to_preload, PRELOAD_S)
        except PreloadError as error:
            option = "preload" if settings.preload else "default_model"
            raise FatalError(
                Exit.CONFIG,
                f"{named(settings, option)}: {error.name} cannot be loaded: {error.failure.message}; "
                f"`loadonce models verify` looks at all of {named(settings, 'model_store')}",
            ) from None
        told = LoopTold(status, clock)
        watchdog = Watchdog(clock, _end)
        stack.callback(watchdog.close)
        watchdog.watch(status.why_stuck)
        offsets = parts.offsets()
        inference = parts.inference(clock)
        stack.callback(lambda: inference.close(closing.left))
        watchdog.watch(lambda: _stalled(inference, settings.stall_s))
        source = parts.source(settings, name, offsets)
        stack.callback(lambda: source.close(closing.left))
        sink: Sink
        if settings.delivery == "exactly-once":
            sink = parts.transactions(settings, name, source=source, offsets=offsets, clock=clock)
        else:
            sink = parts.acknowledged(settings, name, offsets=offsets, clock=clock)
        stack.callback(lambda: sink.close(closing.left))
        stack.callback(logs.hush_kafka)
        stack.callback(closing.restart)
        loop = Loop(
            settings,
            source=source,
            sink=sink,
            offsets=offsets,
            caution=Caution(
                source,
                offsets,
                allowed=settings.poison_starts,
                alone_for=settings.max_in_flight_jobs,
                told=told.trying_alone,
            ),
            parking=parts.parking(),
            serving=serving,
            inference=inference,
            collector=Collector(),
            events=told,
            name=name,
            clock=clock,
            wall_clock=time.time,
        )
        status.snapshot = replace(status.snapshot, phase="running", turned=clock())
        stop.started()
        source.join()
        loop.run(stop.asked, stop.refresh.taken)


def _stalled(inference: Inference, stall_s: float) -> str | None:
    busy_s = inference.running_s
    return f"a model has been busy with one batch for {busy_s:.0f} s" if busy_s > stall_s + STALL_GRACE_S else None
