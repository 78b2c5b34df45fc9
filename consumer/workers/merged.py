"""One HTTP endpoint for all workers: what each of theirs says, side by side."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.observe.http import refresh_route, serving_application
from consumer.workers.worker import Worker


@contextmanager
def serving(workers: Sequence[Worker], host: str, port: int) -> Iterator[int]:
    """Serve on a thread of its own while the context lasts; the port. FatalError: the address is not to be had (69)."""
    with (
        ThreadPoolExecutor(len(workers), thread_name_prefix="ask") as pool,
        serving_application(_application(workers, pool), host, port) as bound,
    ):
        yield bound


class Merged(Collector):
    """The workers' metrics, each with the label `worker`, and what is known of the workers themselves."""

    def __init__(self, workers: Sequence[Worker], pool: ThreadPoolExecutor) -> None:
        self._workers = workers
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """All families at this moment."""
        answers = list(self._pool.map(lambda worker: worker.ask("/metrics"), self._workers))
        families: dict[str, Metric] = {}
        for worker, answer in zip(self._workers, answers, strict=True):
            for family in text_string_to_metric_families(answer[1].decode() if answer else ""):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels=sample.labels | {"worker": str(worker.number)}))
        yield from families.values()
        up = GaugeMetricFamily("loadonce_worker_up", "Whether the worker answers (1) or not (0).", labels=("worker",))
        restarts = CounterMetricFamily(
            "loadonce_worker_restarts",
            "Times that the worker was started again after it had ended.",
            labels=("worker",),
        )
        for worker, answer in zip(self._workers, answers, strict=True):
            up.add_metric((str(worker.number),), answer is not None)
            restarts.add_metric((str(worker.number),), worker.restarts)
        yield up
        yield restarts


def _application(workers: Sequence[Worker], pool: ThreadPoolExecutor) -> Starlette:
    registry = CollectorRegistry()
    registry.register(Merged(workers, pool))

    def documents(path: str, method: str = "GET") -> list[Any]:
        return list(pool.map(lambda worker: worker.document(path, method), workers))

    def health(path: str, *, silent_is_ill: bool) -> Response:
        found = documents(path)
        reasons = []
        for worker, document in zip(workers, found, strict=True):
            if document is not None:
                reasons += [f"worker {worker.number}: {reason}" for reason in document["reasons"]]
            elif silent_is_ill:
                how = "does not answer yet" if worker.running else f"has ended; again in {worker.due_in_s:.0f} s"
                reasons.append(f"worker {worker.number} {how}")
        partitions = sorted(number for document in found if document for number in document["partitions"])
        body = {"ok": not reasons, "reasons": reasons, "partitions": partitions, "workers": found}
        return JSONResponse(body, 503 if reasons else 200)

    def measured(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=None, headers={"content-type": content_type})

    # A worker that starts, or starts again, is being seen to: that is no reason to end them all.
    return Starlette(
        routes=[
            Route("/livez", lambda _: health("/livez", silent_is_ill=False), methods=["GET"]),
            Route("/readyz", lambda _: health("/readyz", silent_is_ill=True), methods=["GET"]),
            Route("/metrics", measured, methods=["GET"]),
            Route("/models", lambda _: JSONResponse({"workers": documents("/models")}), methods=["GET"]),
            refresh_route(lambda: documents("/models/refresh", "POST")),
        ]
    )
