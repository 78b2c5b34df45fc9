"""What is in a broker's `server.properties`."""

import re
from collections.abc import Mapping

from consumer.local.errors import LocalKafkaError

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def defaults(nodes: int, listeners: Mapping[str, str] | None = None) -> dict[str, str]:
    """Properties for a small, quickly started cluster (https://kafka.apache.org/documentation/#brokerconfigs).

    `listeners` are those beside PLAINTEXT and CONTROLLER, each with its security protocol.
    """
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **(listeners or {})}
    replicas, in_sync = (str(nodes), "2") if nodes > 1 else ("1", "1")
    return {
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "auto.create.topics.enable": "false",  # otherwise a consumer's subscription creates a mistyped topic
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",  # 3 s by default, for each first member of a group
        "broker.heartbeat.interval.ms": "500",  # 2 s by default
        "broker.session.timeout.ms": "4000",  # 9 s by default: how long a killed node leads on, and may not come back
        "log.cleaner.dedupe.buffer.size": "2097152",  # 128 MiB by default, taken at start: half the resident memory
    }


def properties(entries: Mapping[str, str]) -> bytes:
    r"""Write Java's properties format, any value coded so that it arrives as it is (`java.util.Properties.load`).

    A backslash, a space, and what is not printable ASCII are written as `\uXXXX`, in UTF-16 units. Raises
    `LocalKafkaError` for a name that no broker property can have.
    """
    lines = []
    for name, value in entries.items():
        if not _NAME.fullmatch(name):
            raise LocalKafkaError(f"{name!r} is not the name of a broker property; correct it")
        lines.append(f"{name}={''.join(map(_coded, value))}\n")
    return "".join(lines).encode("ascii")


def _coded(character: str) -> str:
    if "!" <= character <= "~" and character != "\\":
        return character
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
