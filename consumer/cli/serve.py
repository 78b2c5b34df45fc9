"""`loadonce run`, `broker` and `demo`: what keeps running."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.frame import Config, Json, epilog, print_json
from consumer.exits import Exit, FatalError

_LOOK_S = 0.5


class Nodes(StrEnum):
    """How many nodes a local cluster may have."""

    ONE = "1"
    THREE = "3"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=epilog(
            "LOADONCE_PRELOAD=digits loadonce run",
            "LOADONCE_BOOTSTRAP_SERVERS=kafka:9092 LOADONCE_MODEL_STORE=/models loadonce run",
            "loadonce run --config loadonce.toml",
            "loadonce run --workers 4",
            exits={
                Exit.OK: "stopped by SIGTERM or SIGINT; everything answered is committed",
                Exit.STORE_MISSING: "the model store, or the file of --config, is not there",
                Exit.UNAVAILABLE: "broker, topic or HTTP port not available",
                Exit.SOFTWARE: "",
                Exit.REFUSED: "",
                Exit.CONFIG: "an option that cannot work, or a model to preload that cannot be loaded",
            },
        )
    )(run)
    app.command(
        epilog=epilog(
            "loadonce demo",
            "loadonce demo --keep",
            "loadonce demo --json > report.json",
            exits={
                Exit.OK: "every number adds up",
                Exit.FAILED: "a number does not add up",
                Exit.UNAVAILABLE: "the broker or a consumer does not start",
                Exit.SOFTWARE: "a consumer ended by itself while it was kept",
                Exit.TEMPORARY: "",
                Exit.CONFIG: "the extra `demo` is not installed",
            },
        )
    )(demo)
    app.command(
        epilog=epilog(
            "loadonce broker",
            "loadonce broker --port 0",
            "loadonce broker --nodes 3 --data-dir ./kafka-data",
            exits={
                Exit.OK: "stopped by Ctrl-C or SIGTERM",
                Exit.UNAVAILABLE: "a port is taken, the first download failed, or a broker died",
            },
        )
    )(broker)


def run(
    config: Config = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=64, help="Processes, each a consumer; otherwise LOADONCE_WORKERS, or 1."),
    ] = None,
    line: Annotated[int | None, typer.Option("--line", hidden=True)] = None,
) -> None:
    """Serve: jobs in, predictions out.

    Runs until SIGTERM; every job is answered with a prediction or a dead letter.
    Options come from LOADONCE_* in the environment; `loadonce config show` lists them.
    """
    from consumer.settings import load
    from consumer.stop import Stop, StoppedWhileStartingError

    try:
        stop = Stop()
        settings = load(config)
        if workers is not None:
            settings = settings.model_copy(update={"workers": workers})
        if settings.workers > 1:
            from consumer.workers.supervisor import supervise

            raise typer.Exit(supervise(settings, stop, config))
        # After the options: what is imported here takes a while.
        from consumer.app import run as serve

        raise typer.Exit(serve(settings, stop, on_listening=_on_the_line(line)))
    except StoppedWhileStartingError:
        raise typer.Exit(Exit.OK) from None


def _on_the_line(line: int | None) -> Callable[[int], object]:
    """Tell the process above, where there is one, the port by this file descriptor; and stop once it is gone."""
    import threading

    def follow(fd: int) -> None:
        while os.read(fd, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    def tell(port: int) -> None:
        if line is not None:
            os.write(line, b"%d\n" % port)
            threading.Thread(target=follow, args=(line,), name="line", daemon=True).start()

    return tell


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave broker and consumers running, and print how to talk to them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show it all on real data, and check it.

    A broker, three models trained on the spot in the three formats, two consumers, every held-out sample as a job, and
    a report in which every number has to add up.
    """
    from rich.console import Console

    from consumer.demo.play import play
    from consumer.demo.report import Report
    from consumer.demo.show import show
    from consumer.progress import Progress

    def tell(report: Report) -> None:
        print_json(asdict(report)) if as_json else show(report, Console(width=None if sys.stdout.isatty() else 120))

    with _sigterm_interrupts():
        report = play(Progress(), keep=keep, on_report=tell)
    if report.problems:
        raise FatalError(Exit.FAILED, f"the demo's numbers do not add up: {report.problems[0]}")


def broker(
    nodes: Annotated[Nodes, typer.Option("--nodes", help="Nodes of the cluster.")] = Nodes.ONE,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_533, help="Port of the first node, the others follow; 0: free ones.")
    ] = 9092,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Keep the data here, and go on with what is there.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary data folder; its name is printed.")] = False,
) -> None:
    """Run a real Kafka on this machine.

    For trying and testing: it needs neither Docker nor an installed Java, and ends with Ctrl-C.
    Prints the bootstrap servers on standard output once it serves. The first start downloads Kafka (45 MB).
    """
    from consumer.local import LocalKafka
    from consumer.progress import Progress

    progress = Progress()
    size = int(nodes.value)
    ports = range(port, port + size) if port else None
    cluster = LocalKafka(size, data_dir=data_dir, keep=keep, ports=ports, on_progress=progress.tell)
    with _sigterm_interrupts(), cluster as kafka:
        try:
            sys.stdout.write(kafka.bootstrap_servers + "\n")
            sys.stdout.flush()
            progress.tell(f"data in {kafka.data_dir}; stop with Ctrl-C")
            while all(node.alive for node in kafka.nodes):
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            return
        dead = next(node for node in kafka.nodes if not node.alive)
        raise FatalError(Exit.UNAVAILABLE, f"broker {dead.id} has died; its log is {dead.log} (kept with --data-dir)")


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that everything that was started is stopped."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
