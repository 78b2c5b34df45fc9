"""Predictions and dead letters as a line or as JSON."""

from typing import TYPE_CHECKING, Any

from consumer.cli.frame import printable

if TYPE_CHECKING:
    from schemas.messages import DeadLetter, Prediction


def line(outcome: "Prediction | DeadLetter") -> str:
    """One line for a person; what came from the topic is made harmless."""
    from schemas.messages import Prediction

    if isinstance(outcome, Prediction):
        shapes = ", ".join(f"{tensor.name} {list(tensor.array.shape)}" for tensor in outcome.response.outputs)
        asked = f"  id {text(outcome.correlation_id)}" if outcome.correlation_id is not None else ""
        return printable(
            f"prediction   {outcome.position}  {outcome.model_key}/{outcome.model_version}  {shapes}{asked}"
        )
    return printable(f"dead letter  {outcome.position}  {outcome.reason} ({outcome.stage}): {outcome.message}")


def document(outcome: "Prediction | DeadLetter") -> dict[str, Any]:
    """What JSON can hold of it; a dead letter without its job."""
    from schemas.headers import CORRELATION_ID
    from schemas.messages import Prediction

    if isinstance(outcome, Prediction):
        return {
            "kind": "prediction",
            "position": str(outcome.position),
            "correlation_id": text(outcome.correlation_id),
            "id": outcome.response.id,
            "model": outcome.model_key,
            "version": outcome.model_version,
            "outputs": {tensor.name: values(tensor.array) for tensor in outcome.response.outputs},
        }
    return {
        "kind": "dead letter",
        "position": str(outcome.position),
        "correlation_id": text(dict(outcome.headers).get(CORRELATION_ID)),
        "reason": outcome.reason,
        "stage": outcome.stage,
        "message": outcome.message,
        "attempts": outcome.attempts,
        "consumer": outcome.consumer,
        "failed_at": outcome.failed_at,
        "truncated": outcome.truncated,
    }


def values(array: Any) -> Any:
    """Nested lists; BYTES as a flat list of text."""
    if array.dtype.hasobject:
        return [text(element) for element in array.reshape(-1).tolist()]
    return array.tolist()


def text(value: bytes | None) -> str | None:
    """UTF-8, what is not replaced."""
    return None if value is None else value.decode(errors="replace")
