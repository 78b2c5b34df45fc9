"""The one thread that runs TensorFlow, so that polling, decoding and sending overlap with computing."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from consumer.pipeline.batch import Batch
from consumer.pipeline.predict import Answers, predict

# One batch is computed while one waits, so that the thread never idles between two; more would only make jobs that
# come later wait longer for a batch of their own.
DEPTH = 2


@dataclass(frozen=True, slots=True)
class Predicted:
    """A batch and its answers; together they hold every job of the batch, in order."""

    batch: Batch
    answers: list[Answers]


class Inference:
    """Batches in, answers out, in order. All methods are for the loop's thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None
        self._in: SimpleQueue[Batch | None] = SimpleQueue()
        self._out: SimpleQueue[Predicted | BaseException] = SimpleQueue()
        self._pending = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Batches submitted whose answers have not been collected."""
        return self._pending

    @property
    def has_room(self) -> bool:
        """Whether another batch would not have to wait for more than one."""
        return self._pending < DEPTH

    @property
    def running_s(self) -> float:
        """For how long the batch at hand has been computed; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else self._clock() - began

    def submit(self, batch: Batch) -> None:
        """Hand over a batch."""
        self._pending += 1
        self._in.put(batch)

    def collect(self, timeout_s: float) -> list[Predicted]:
        """What has been predicted; where there is nothing yet, wait for it for at most `timeout_s` seconds."""
        collected: list[Predicted] = []
        while self._pending:
            try:
                done = self._out.get(timeout=timeout_s) if timeout_s and not collected else self._out.get_nowait()
            except Empty:
                break
            if isinstance(done, BaseException):
                raise done
            self._pending -= 1
            collected.append(done)
        return collected

    def close(self, timeout_s: float) -> None:
        """End the thread after what it was given; a call into a model that does not return is left behind."""
        self._in.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (batch := self._in.get()) is not None:
            self._began = self._clock()
            try:
                answers = predict(batch)
            except BaseException as error:  # noqa: BLE001 - it is raised again on the loop's thread
                self._out.put(error)
                return
            self._began = None
            self._out.put(Predicted(batch, answers))
