"""The local broker, as real processes: what it keeps, what it survives, and that nothing of it stays behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from consumer.local import LocalKafka, LocalKafkaError
from consumer.local.ports import free_ports
from tests.conftest import Topics, create_topics

WAIT_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.05)


def produce(cluster: LocalKafka, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, acks="all", reconnect_backoff_max_ms=500, request_timeout_ms=10_000
    )
    try:
        for future in [producer.send(topic, value, partition=0) for value in values]:
            future.get(timeout=WAIT_S)
    finally:
        producer.close(timeout=5)


def consume(cluster: LocalKafka, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest", reconnect_backoff_max_ms=500
    )
    values: list[bytes] = []
    deadline = time.monotonic() + WAIT_S
    try:
        consumer.assign([TopicPartition(topic, 0)])
        while len(values) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200).values():
                values += [record.value for record in records]
    finally:
        consumer.close(timeout_ms=5_000)
    return values


def gone(pid: int) -> bool:
    """A process that is a zombie has ended; whether its new parent collects it is not ours to decide."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip()[:1] in {"", "Z"}


def test_carries_records(kafka: LocalKafka, topics: Topics) -> None:
    produce(kafka, topics.jobs, [b"a", b"", b"c" * 100_000])
    assert consume(kafka, topics.jobs, 3) == [b"a", b"", b"c" * 100_000]


def test_creates_no_topic_by_itself(kafka: LocalKafka) -> None:
    consumer = KafkaConsumer("mistyped", bootstrap_servers=kafka.bootstrap_servers, group_id="mistyped")
    consumer.poll(timeout_ms=1_000)
    consumer.close(timeout_ms=5_000)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        assert "mistyped" not in admin.list_topics()
    finally:
        admin.close()


def test_listens_on_loopback_only(kafka: LocalKafka) -> None:
    _, _, addresses = socket.gethostbyname_ex(socket.gethostname())
    outside = [address for address in addresses if not address.startswith("127.")]
    if not outside:
        outside = ["::1"]  # a machine without another address still has this one
    for address in outside:
        with pytest.raises(OSError, match=r"refused|unreachable|Cannot assign"):
            socket.create_connection((address, kafka.nodes[0].port), timeout=2)


@pytest.fixture(scope="module")
def three() -> Iterator[LocalKafka]:
    with LocalKafka(3) as cluster:
        yield cluster


def test_three_nodes_accept_acks_all_without_the_leader(three: LocalKafka) -> None:
    create_topics(three, "survivor", partitions=1)
    admin = KafkaAdminClient(bootstrap_servers=three.bootstrap_servers)
    (partition,) = admin.describe_topics(["survivor"])[0]["partitions"]
    admin.close()
    assert len(partition["replica_nodes"]) == 3
    leader = three.nodes[partition["leader_id"] - 1]
    produce(three, "survivor", [b"before"])
    leader.kill()
    assert not leader.alive
    produce(three, "survivor", [b"without"])
    leader.start()
    produce(three, "survivor", [b"after"])
    assert consume(three, "survivor", 3) == [b"before", b"without", b"after"]


def test_two_of_three_lost_refuse_acks_all_until_they_are_back(three: LocalKafka) -> None:
    create_topics(three, "majority", partitions=1)
    for node in three.nodes[:2]:
        node.kill()
    with pytest.raises(Exception, match=r"(?i)timeout|replicas|bootstrap|leader"):
        produce_once = KafkaProducer(
            bootstrap_servers=three.bootstrap_servers, acks="all", max_block_ms=3_000, delivery_timeout_ms=3_000,
            request_timeout_ms=2_000, bootstrap_timeout_ms=3_000,
        )  # fmt: skip
        try:
            produce_once.send("majority", b"no", partition=0).get(timeout=6)
        finally:
            produce_once.close(timeout=0)
    for node in three.nodes[:2]:
        node.start(wait=False)
    three.wait_until_serving()
    produce(three, "majority", [b"yes"])


def test_a_paused_node_answers_after_it_is_resumed(tmp_path: Path) -> None:
    with LocalKafka() as cluster:
        create_topics(cluster, "paused", partitions=1)
        (node,) = cluster.nodes
        node.pause()
        assert node.alive
        with socket.create_connection(("127.0.0.1", node.port), timeout=5) as client:
            client.sendall(b"\0\0\0\x0a\0\x12\0\0\0\0\0\1\xff\xff")  # ApiVersions v0, correlation id 1, no client id
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.recv(8)
            node.resume()
            client.settimeout(WAIT_S)
            assert client.recv(8)[4:] == b"\0\0\0\1"
        produce(cluster, "paused", [b"x"])


def test_data_outlives_stop_kill_and_a_second_cluster_on_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with LocalKafka(data_dir=folder) as cluster:
        create_topics(cluster, "kept", partitions=1)
        (node,) = cluster.nodes
        produce(cluster, "kept", [b"1"])
        port, first = node.port, node.pid
        node.stop()
        assert not node.alive
        node.start()
        assert (node.port, node.alive) == (port, True)
        assert node.pid != first
        produce(cluster, "kept", [b"2"])
        node.kill()
        node.start()
        produce(cluster, "kept", [b"3"])
    with LocalKafka(data_dir=folder) as cluster:
        assert consume(cluster, "kept", 3) == [b"1", b"2", b"3"]
    with pytest.raises(LocalKafkaError, match="holds a cluster of 1 nodes, not 3"), LocalKafka(3, data_dir=folder):
        pass


def test_data_is_removed_and_the_port_free_unless_kept() -> None:
    with LocalKafka() as cluster:
        (node,) = cluster.nodes
        assert (cluster.data_dir / "node-1" / "data" / "meta.properties").exists()
    assert not cluster.data_dir.exists()
    assert gone(node.pid)
    socket.create_server(("127.0.0.1", node.port)).close()


def test_config_reaches_the_broker_and_the_port_is_the_one_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with LocalKafka(ports=[port], config={"auto.create.topics.enable": "true"}) as cluster:
        assert cluster.bootstrap_servers == f"127.0.0.1:{port}"
        produce(cluster, "made-by-use", [b"x"])
        assert consume(cluster, "made-by-use", 1) == [b"x"]


def test_a_closed_cluster_does_not_start_a_node() -> None:
    with LocalKafka() as cluster:
        (node,) = cluster.nodes
    with pytest.raises(LocalKafkaError, match="where the cluster has been closed enter a new one"):
        node.start()


def test_a_taken_port_is_named_with_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalKafkaError, match=f"port {port} is taken; stop .* or name another port"):
            LocalKafka(ports=[port]).__enter__()


@pytest.mark.parametrize("taken", [0, 1], ids=["broker", "controller"])
def test_a_free_port_lost_to_another_process_is_replaced(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        lost = free_ports(2)
        lost[taken] = server.getsockname()[1]
        offered = [lost]
        monkeypatch.setattr(
            "consumer.local.cluster.free_ports", lambda count: offered.pop() if offered else free_ports(count)
        )
        with LocalKafka() as cluster:
            assert not offered
            create_topics(cluster, "recovered", partitions=1)


def test_another_cluster_on_a_lost_port_is_not_taken_for_ours(
    kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = [[kafka.nodes[0].port, *free_ports(1)]]
    monkeypatch.setattr("consumer.local.cluster.free_ports", lambda n: offered.pop() if offered else free_ports(n))
    with LocalKafka() as cluster:
        assert cluster.bootstrap_servers != kafka.bootstrap_servers


def test_a_broker_that_cannot_start_is_quoted_and_leaves_nothing() -> None:
    cluster = LocalKafka(config={"message.max.bytes": "many"})
    with pytest.raises(LocalKafkaError, match=r"(?s)message\.max\.bytes") as caught:
        cluster.__enter__()
    assert "\n" not in str(caught.value)
    assert not cluster.data_dir.exists()


ORPHAN = """
import sys, time
from consumer.local import LocalKafka
with LocalKafka() as cluster:
    print(cluster.nodes[0].pid, cluster.data_dir, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_broker_ends_with_its_killed_parent(paused: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        word, folder = parent.stdout.readline().split()
        pid = int(word)
        assert not gone(pid)
        assert Path(folder).exists()
        if paused:
            os.kill(pid, signal.SIGSTOP)
            # A group that is orphaned with a stopped member is sent SIGHUP; here it is, before the rest can be quicker.
            os.kill(os.getpgid(pid), signal.SIGHUP)
    finally:
        parent.kill()
        parent.wait(WAIT_S)
        parent.stdout.close()
    until(lambda: gone(pid), "the broker's end after its parent was killed")
    until(lambda: not Path(folder).exists(), "the removal of the broker's data")


def test_without_network_the_first_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed}")
    with pytest.raises(
        LocalKafkaError, match=r"cannot be downloaded from Maven Central \(.*refused.*HTTPS_PROXY"
    ) as caught:
        LocalKafka().__enter__()
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "loadonce").iterdir()] == ["kafka-4.4.0.lock"]


DOWNLOAD = """
from consumer.local.install import installation
kafka = installation(lambda line: print(line, flush=True))
print("jars", len(kafka.jars), all(jar.exists() for jar in kafka.jars))
"""


def test_two_first_downloads_at_once_share_one_and_the_next_needs_no_network(tmp_path: Path) -> None:
    damaged = tmp_path / "loadonce" / "kafka-4.4.0"
    damaged.mkdir(parents=True)
    (damaged / "index").write_text("kafka_2.13-4.4.0.jar 1000000\n")
    (damaged / "kafka_2.13-4.4.0.jar").write_bytes(b"cut short")
    (damaged.parent / "kafka-4.4.0.partial").mkdir()  # of a process that died while downloading

    def start(**more: str) -> subprocess.Popen[str]:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | more
        return subprocess.Popen([sys.executable, "-c", DOWNLOAD], stdout=subprocess.PIPE, text=True, env=environment)

    said = [process.communicate(timeout=200)[0] for process in [start(), start()]]
    for output in said:
        assert output.splitlines()[-1] == "jars 45 True"
    assert sum("(1 of 45" in output for output in said) == 1
    assert sum("waiting for another process" in output for output in said) == 1
    offline, _ = start(HTTPS_PROXY="http://127.0.0.1:9").communicate(timeout=60)
    assert offline.splitlines() == ["jars 45 True"]
    assert sorted(path.name for path in damaged.parent.iterdir()) == ["kafka-4.4.0", "kafka-4.4.0.lock"]
