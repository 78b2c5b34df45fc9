"""When a broker truly answers: not when its port is open, but when it is in the metadata that clients are given."""

import socket
import time
from collections.abc import Callable, Collection

from consumer.local.ports import LOOPBACK

_LOOK_S = 0.05
_REQUEST_TIMEOUT_MS = 5_000


def wait_until_serving(port: int, cluster_id: str, ids: Collection[int], check: Callable[[], None]) -> None:
    """Ask the broker on `port` until it is of that cluster and lists every broker of `ids` as serving.

    The cluster id tells our broker from another that took the port while it was free.

    `check` is called between the looks; it ends the waiting by raising, at a deadline or because a broker has died.
    """
    from kafka import KafkaAdminClient, errors  # noqa: PLC0415  # 1 s to import, while the broker starts anyway

    while not _listens(port):
        check()
        time.sleep(_LOOK_S)
    while True:
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=f"{LOOPBACK}:{port}",
                bootstrap_timeout_ms=_REQUEST_TIMEOUT_MS,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
            )
            try:
                cluster = admin.describe_cluster()
            finally:
                admin.close()
        except errors.KafkaError:
            pass  # not yet: `check` decides for how long
        else:
            serving = {broker["broker_id"] for broker in cluster["brokers"] if not broker["is_fenced"]}
            if cluster["cluster_id"] == cluster_id and set(ids) <= serving:
                return
        check()
        time.sleep(_LOOK_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
