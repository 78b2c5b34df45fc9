"""A cluster of local brokers as a context manager."""

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from consumer.local import watchdog
from consumer.local.config import defaults, properties
from consumer.local.errors import LocalKafkaError
from consumer.local.install import KAFKA_VERSION, Installation, installation
from consumer.local.node import START_TIMEOUT_S, Node, launch, quote
from consumer.local.ports import LOOPBACK, check_free, free_ports

_SIZES = (1, 3)
_PORT_RACES = 3  # how often ports that were free a moment ago may turn out taken
_STOP_TIMEOUT_S = 15.0
_BIND_FAILED = ("failed to bind", "BindException", "Address already in use")
_OWN = frozenset(
    {"node.id", "process.roles", "log.dirs", "listeners", "advertised.listeners", "controller.quorum.voters"}
)


class LocalKafka:
    """A real Kafka cluster of 1 or 3 nodes on 127.0.0.1, each broker and controller (KRaft), while the context lasts.

    `data_dir` is where the nodes keep logs and data, and is kept; without it a temporary folder is used, and removed at
    the end, also when this process is killed, unless `keep`. A `data_dir` used before goes on with what it holds.
    `ports` are those of the brokers, one a node; without it free ones are taken. `config` are further properties of
    every broker, and win over the defaults here. `listeners` are further listeners by name, each with its security
    protocol (`{"CLIENTS": "SASL_SSL"}`), on free ports; what they need beside it (`listener.name.clients.*`) is for
    `config` to say. `on_progress` is told what is being done, a line at a time. Topics are never created by using them.

    Entering takes 3 s (three nodes: 6 s) and, the first time for a user, the download of Kafka (45 MB). It raises
    `LocalKafkaError` where the extra `local`, the network (the first time), a port, or a broker fails. The constructor
    raises `ValueError` for arguments that cannot be meant.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        data_dir: Path | None = None,
        keep: bool = False,
        ports: Sequence[int] | None = None,
        config: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        if nodes not in _SIZES:
            raise ValueError(f"a cluster has 1 or 3 nodes, not {nodes}")
        if ports is not None and len(set(ports)) != nodes:
            raise ValueError(f"{nodes} different ports are needed, not {list(ports)}")
        if taken := _OWN & set(config or ()):
            raise ValueError(f"{', '.join(sorted(taken))}: set by LocalKafka itself; leave it out of config")
        if taken := frozenset({"PLAINTEXT", "CONTROLLER"}) & set(listeners or ()):
            raise ValueError(f"{', '.join(sorted(taken))}: every node has that listener; name another")
        self._size = nodes
        self._data_dir = data_dir
        self._keep = keep
        self._ports = ports
        self._config = dict(config or {})
        self._listeners = dict(listeners or {})
        self._on_progress = on_progress or (lambda _line: None)
        self._nodes: tuple[Node, ...] = ()
        self._stack = ExitStack()
        self.data_dir = Path()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, by id from 1; none before the context is entered."""
        return self._nodes

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of every node, running or not, comma-separated."""
        return ",".join(f"{LOOPBACK}:{node.port}" for node in self._nodes)

    def servers(self, listener: str) -> str:
        """`host:port` of every node's further listener of that name, comma-separated."""
        return ",".join(f"{LOOPBACK}:{node.listeners[listener]}" for node in self._nodes)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for port in self._ports or ():
                check_free(port)
            kafka = installation(self._on_progress)
            self.data_dir, temporary = self._folder(stack)
            group = _watch(stack, temporary)
            stack.callback(self._end, gently=temporary is None)
            self._on_progress(f"starting Kafka {KAFKA_VERSION}, {self._size} node{'s' if self._size > 1 else ''}")
            self._start(kafka, group)
            self._on_progress(f"Kafka serves at {self.bootstrap_servers}")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_until_serving(self) -> None:
        """Wait until every node serves and knows the others; `LocalKafkaError` where one has ended, or after 120 s."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for node in self._nodes:
            node.wait(deadline, [other.id for other in self._nodes])

    def _folder(self, stack: ExitStack) -> tuple[Path, Path | None]:
        """Give the data folder and, where it is to be removed at the end, the folder again."""
        try:
            if self._data_dir is not None:
                found = len(list(self._data_dir.glob("node-*")))
                if found not in {0, self._size}:
                    raise LocalKafkaError(
                        f"{self._data_dir} holds a cluster of {found} nodes, not {self._size}; "
                        "start as many, or name another folder"
                    )
                self._data_dir.mkdir(parents=True, exist_ok=True)
                return self._data_dir.resolve(), None
            folder = Path(tempfile.mkdtemp(prefix="loadonce-kafka-"))
        except OSError as error:
            raise LocalKafkaError(
                f"the brokers' data cannot be kept in {error.filename}: {error.strerror}; "
                "name a folder that can be written to"
            ) from error
        if self._keep:
            return folder, None
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder, folder

    def _start(self, kafka: Installation, group: int) -> None:
        for races_left in reversed(range(_PORT_RACES)):
            cluster_id = _cluster_id(self.data_dir)
            self._nodes = self._configure(kafka, cluster_id, group)
            _format(kafka, cluster_id, self._nodes, group)
            for node in self._nodes:
                node.start(wait=False)
            try:
                self.wait_until_serving()
            except LocalKafkaError as error:
                lost_race = self._ports is None and any(mark in str(error) for mark in _BIND_FAILED)
                if not (lost_race and races_left):
                    raise
                self._end(gently=False)
            else:
                return

    def _configure(self, kafka: Installation, cluster_id: str, group: int) -> tuple[Node, ...]:
        """Write each node's `server.properties`; its folder keeps the data where it was used before."""
        free = free_ports((2 + len(self._listeners)) * self._size)
        brokers = list(self._ports or free[: self._size])
        controllers = free[self._size : 2 * self._size]
        others = free[2 * self._size :]
        voters = ",".join(f"{i}@{LOOPBACK}:{port}" for i, port in enumerate(controllers, start=1))
        nodes = []
        for node_id, (broker, controller) in enumerate(zip(brokers, controllers, strict=True), start=1):
            folder = self.data_dir / f"node-{node_id}"
            folder.mkdir(exist_ok=True)
            ports = dict(zip(self._listeners, others[node_id - 1 :: self._size], strict=True))
            serving = [f"{name}://{LOOPBACK}:{port}" for name, port in ({"PLAINTEXT": broker} | ports).items()]
            own = {
                "process.roles": "broker,controller",
                "node.id": str(node_id),
                "controller.quorum.voters": voters,
                "listeners": ",".join([*serving, f"CONTROLLER://{LOOPBACK}:{controller}"]),
                "advertised.listeners": ",".join(serving),
                "log.dirs": str(folder / "data"),
            }
            file = folder / "server.properties"
            file.write_bytes(properties(defaults(self._size, self._listeners) | self._config | own))
            log = folder / "broker.log"
            log.write_bytes(b"")
            command = kafka.command("kafka.Kafka", str(file))
            nodes.append(
                Node(
                    node_id,
                    broker,
                    listeners=ports,
                    cluster_id=cluster_id,
                    command=command,
                    log=log,
                    process_group=group,
                )
            )
        return tuple(nodes)

    def _end(self, *, gently: bool) -> None:
        """End every node: all at once, as the last would wait for the others; without ado where data is removed."""
        if gently:
            for node in self._nodes:
                node.begin_stop()
        deadline = time.monotonic() + (_STOP_TIMEOUT_S if gently else 0)
        for node in self._nodes:
            node.stop(max(0.0, deadline - time.monotonic())) if gently else node.kill()


def _cluster_id(data_dir: Path) -> str:
    """Give the id of the cluster whose data is there, otherwise a new one."""
    for file in data_dir.glob("node-*/data/meta.properties"):
        for line in file.read_text(encoding="latin-1").splitlines():
            name, _, value = line.partition("=")
            if name == "cluster.id":
                return value
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def _format(kafka: Installation, cluster_id: str, nodes: Sequence[Node], group: int) -> None:
    """Format what has no data yet, all at once. Every node of a cluster needs the same cluster id."""
    fresh = [node for node in nodes if not (node.log.parent / "data" / "meta.properties").exists()]
    if len(fresh) not in {0, len(nodes)}:
        raise LocalKafkaError(
            f"{nodes[0].log.parent.parent} holds a part of a cluster; remove it, or name another folder"
        )
    running = []
    for node in fresh:
        arguments = ("format", f"--cluster-id={cluster_id}", "--config", str(node.log.parent / "server.properties"))
        running.append((node, launch(kafka.command("kafka.tools.StorageTool", *arguments), node.log, group)))
    deadline = time.monotonic() + START_TIMEOUT_S
    for node, process in running:
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != 0:
            raise LocalKafkaError(f"the data folder of broker {node.id} cannot be prepared: {quote(node.log)}")


def _watch(stack: ExitStack, temporary: Path | None) -> int:
    """Start the watchdog and give its process group, which the brokers are to join."""
    arguments = [str(os.getpid()), *([str(temporary)] if temporary else [])]
    process = subprocess.Popen(  # noqa: S603  # our own script, run by our own interpreter
        [sys.executable, "-I", "-S", str(Path(watchdog.__file__)), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )

    def end() -> None:
        process.kill()
        process.wait(_STOP_TIMEOUT_S)
        if process.stdin is not None:
            process.stdin.close()

    stack.callback(end)
    return process.pid
