"""Starts the workers, starts them again, passes signals on, and waits for them at the end. It runs no model itself."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from consumer.exits import Exit, FatalError
from consumer.observe import logs
from consumer.settings import Settings, env_name
from consumer.stop import Stop
from consumer.workers.merged import serving
from consumer.workers.worker import FINAL, Worker

LOOK_S = 0.1
GRACE_S = 10.0
"""What a worker may take beyond DRAIN_S to end."""


def supervise(settings: Settings, stop: Stop, config: Path | None, clock: Callable[[], float] = time.monotonic) -> Exit:
    """Serve with `settings.workers` processes until `stop`; OK if all have ended well then, else SOFTWARE.

    FatalError: the HTTP port is not to be had (69); a worker says that it cannot run here, as all would (its code).
    """
    logs.configure(settings.log_format, settings.log_level)
    log = logs.logger()
    workers = [Worker(number, config, _environ(settings, number), clock) for number in range(settings.workers)]
    with serving(workers, settings.http_host, settings.http_port) as port:
        log.info("supervising", workers=len(workers), host=settings.http_host, port=port)
        stop.started()
        try:
            _watch(workers, stop)
        finally:
            codes = _drain(workers, settings.drain_s, clock)
        log.info("workers ended", codes=codes)
    return Exit.OK if not any(codes) else Exit.SOFTWARE


def _watch(workers: list[Worker], stop: Stop) -> None:
    log = logs.logger()
    while not stop.asked():
        if stop.refresh.taken():
            for worker in workers:
                worker.send(signal.SIGHUP)
        for worker in workers:
            code = worker.look()
            if code in FINAL:
                raise FatalError(
                    Exit(code), f"worker {worker.number} cannot run, and no other could: see its last line"
                )
            if code is not None:
                log.error("worker ended", worker=worker.number, code=code, again_in_s=round(worker.due_in_s, 1))
        time.sleep(LOOK_S)


def _drain(workers: list[Worker], drain_s: float, clock: Callable[[], float]) -> list[int]:
    """Have all end; their exit codes. One that takes too long is killed: what it had in hand is read again."""
    for worker in workers:
        worker.send(signal.SIGTERM)
    deadline = clock() + drain_s + GRACE_S
    codes: list[int] = []
    left = [worker for worker in workers if worker.running]
    while left:
        if clock() >= deadline:
            for worker in left:
                worker.send(signal.SIGKILL)
        for worker in left:
            code = worker.look()
            if code is not None:
                codes.append(code)
        left = [worker for worker in left if worker.running]
        time.sleep(LOOK_S if left else 0)
    return codes


def _environ(settings: Settings, number: int) -> dict[str, str]:
    """A worker's options: as given, with a port, a share of the cores and, where it has one, a name of its own."""
    own: dict[str, object] = {
        "workers": 1,
        "http_host": "127.0.0.1",
        "http_port": 0,
        "intra_op_threads": settings.intra_op_threads or max(1, (os.cpu_count() or 1) // settings.workers),
    }
    if settings.instance_id is not None:
        own["instance_id"] = f"{settings.instance_id}-{number}"
    return dict(os.environ) | {env_name(option): str(value) for option, value in own.items()}
