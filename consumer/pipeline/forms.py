"""Body -> form and data: read where it is of no known kind, else only compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consumer.pipeline.job import Data, Form
from schemas.codec import decode_request
from schemas.frames import Frame, frame_of
from schemas.limits import Limits
from schemas.messages import ContentType, Request
from schemas.msgpack_body import SMALL
from schemas.tensor import datatype_of, tensor_to_bytes

MOST = 1_024
"""Forms that are remembered, and lengths of bodies; with one more, all are forgotten."""
MOST_OF_A_LENGTH = 4
MOST_CHARACTERS = 4_096
"""In the names of a form's tensors and outputs, all together, and in their dimensions one each: others are not
remembered."""


@dataclass(frozen=True, slots=True)
class Known:
    """A frame of bodies, and what a body of it holds beside its data and id."""

    frame: Frame
    form: Form
    parameters: Mapping[Any, Any] | None


class Forms:
    """The forms of late."""

    def __init__(self) -> None:
        self._forms: dict[object, Form] = {}
        self._known: dict[int, list[Known]] = {}

    def known(self, body: bytes) -> Known | None:
        """What is known of a msgpack body without reading it."""
        for known in self._known.get(len(body), ()):
            if known.frame.holds(body):
                return known
        return None

    def read(self, body: bytes | None, content_type: ContentType, limits: Limits) -> tuple[Form, Request]:
        """A body of no known frame, by which others like it are known from now on. RefusedError as `decode_request`."""
        request = decode_request(body, content_type, limits)
        form = self._form(request)
        if body is not None and content_type is ContentType.MSGPACK and "BOOL" not in form.datatypes:
            # Of what is true or false, not every byte will do.
            self._learn(body, form, request)
        return form, request

    def _form(self, request: Request) -> Form:
        inputs = request.inputs
        names = tuple([tensor.name for tensor in inputs])
        datatypes = tuple([datatype_of(tensor.array) for tensor in inputs])
        shapes = tuple([tensor.array.shape for tensor in inputs])
        key = names, datatypes, shapes, request.outputs
        form = self._forms.get(key)
        if form is None:
            form = Form(*key)
            if sum(map(len, (*names, *shapes, *(request.outputs or ())))) <= MOST_CHARACTERS:
                if len(self._forms) >= MOST:
                    self._forms.clear()
                self._forms[key] = form
        return form

    def _learn(self, body: bytes, form: Form, request: Request) -> None:
        frame = frame_of(body)
        if frame is None or len(frame.data) != len(form.names):
            return
        if len(self._known) >= MOST:
            self._known.clear()
        alike = self._known.setdefault(len(body), [])
        alike.insert(0, Known(frame, form, request.parameters))
        del alike[MOST_OF_A_LENGTH:]


def data_of(request: Request) -> tuple[Data, ...]:
    """The data of a request's tensors."""
    return tuple(
        [tensor.array if tensor.array.dtype.hasobject else tensor_to_bytes(tensor.array) for tensor in request.inputs]
    )


def data_in(body: bytes, frame: Frame) -> tuple[Data, ...]:
    """The data in a body of a frame: of a large one without a copy."""
    if len(body) > SMALL:
        view = memoryview(body)
        return tuple([view[start:end] for start, end in frame.data])
    if len(frame.data) == 1:
        start, end = frame.data[0]
        return (body[start:end],)
    return tuple([body[start:end] for start, end in frame.data])
