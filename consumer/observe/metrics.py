"""The metrics, each defined here and nowhere else: its type, its unit (in its name), its labels, and one sentence.

`model` is a name in the store, never one that a job made up: the series of a model go when the store has it no more.
`reason` is a reason code of dead letters. What is a state is read from the newest snapshot when it is asked for; what
is an event is counted when it is told.
"""

import threading
from collections import Counter as Count
from collections.abc import Collection, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.observe.status import Status

LOAD_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody asks for


class ModelMetrics:
    """What is counted of the models. From any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.load_attempts = Counter(
            "loadonce_model_load_attempts_total",
            "Attempts to load a model by outcome: loaded, retried (it may pass), failed (given up, by reason), "
            "abandoned (withdrawn or changed meanwhile, or no room for what nobody needs).",
            ("model", "outcome", "reason"),
            registry=registry,
        )
        self.load_seconds = Histogram(
            "loadonce_model_load_seconds",
            "How long loading took until the model was warm, by the format of its files.",
            ("format",),
            buckets=LOAD_SECONDS,
            registry=registry,
        )
        self.room_waits = Counter(
            "loadonce_model_room_waits_total",
            "Times that a loaded model had to wait for room in the cache: if this grows, the cache is too small.",
            ("model",),
            registry=registry,
        )
        self.swaps = Counter(
            "loadonce_model_swaps_total",
            "Times that another version began to answer jobs that name none.",
            ("model",),
            registry=registry,
        )
        self.drops = Counter(
            "loadonce_model_drops_total",
            "Models that left memory by why: evicted (for room), replaced, withdrawn (from the store).",
            ("model", "why"),
            registry=registry,
        )
        self.store_looks = Counter(
            "loadonce_store_looks_total", "Looks at the model store that have ended.", registry=registry
        )
        self._by_model = (self.load_attempts, self.room_waits, self.swaps, self.drops)
        self._lock = threading.Lock()
        self._models: set[str] = set()

    def of(self, model: str) -> str:
        """The model's name as a label, remembered so that it can be let go of."""
        with self._lock:
            self._models.add(model)
        return model

    def keep_only(self, models: Collection[str]) -> None:
        """Let go of the series of all other models."""
        with self._lock:
            gone = [model for model in self._models if model not in models]
            self._models.difference_update(gone)
        for model in gone:
            for metric in self._by_model:
                metric.remove_by_labels({"model": model})


class ModelStates(Collector):
    """What is read from the models' newest snapshot."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """The states at this moment."""
        now = self._status.models
        yield GaugeMetricFamily("loadonce_cache_models", "Models loaded and ready to serve.", len(now.models))
        yield GaugeMetricFamily(
            "loadonce_cache_bytes", "Bytes of all models in memory, as the cache counts them.", now.cache_bytes
        )
        yield GaugeMetricFamily("loadonce_models_loading", "Versions being loaded or in line for it.", len(now.loading))
        yield GaugeMetricFamily(
            "loadonce_models_waiting_for_room",
            "Loaded versions whose jobs wait until the cache may let another model go.",
            len(now.waiting_for_room),
        )
        served = GaugeMetricFamily(
            "loadonce_model_served_version", "The version that answers jobs that name none.", labels=("model",)
        )
        for version in now.models:
            if version.current:
                served.add_metric((version.key,), version.version)
        yield served
        failed = GaugeMetricFamily(
            "loadonce_model_failed_versions",
            "Versions whose jobs fail at once, because loading failed and is not due again.",
            labels=("model", "reason"),
        )
        for (model, reason), count in Count((one.key, str(one.failure.reason)) for one in now.failed).items():
            failed.add_metric((model, reason), count)
        yield failed
        yield GaugeMetricFamily(
            "loadonce_store_problems", "Things in the model store that are not as they should be.", len(now.problems)
        )


class Metrics:
    """All metrics of the process, and their text for whoever asks."""

    def __init__(self, status: Status) -> None:
        self.registry = CollectorRegistry()
        self.models = ModelMetrics(self.registry)
        self.registry.register(ModelStates(status))

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition, in the format that the `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
