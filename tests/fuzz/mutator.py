"""Jobs as no publisher would write them, by the number: the same seed and number always make the same record.

A good job for one of `tests.stores` is changed in its headers, in the structure of its body, and byte by byte. It is
blind (no coverage guides it), so it starts from what is nearly right and knows the values that parsers fear.

Whatever of a job is the publisher's own (ids, names of tensors, data, parameters, values of headers) holds MARK, so
that a message or a log line that repeats any of it gives itself away.
"""

import json
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgpack

from tests import stores

MARK: Final = "PAYLOAD"
MARK_BYTES: Final = MARK.encode()
LONGEST: Final = 500_000  # bytes of a body: mutations multiply


@dataclass(frozen=True, slots=True)
class Raw:
    """A record before any client has seen it: names of headers are bytes, as on the wire."""

    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[bytes, bytes | None], ...] = field(repr=False)
    age_ms: int = 0


Headers = list[tuple[bytes, bytes | None]]


class Pairs(list[list[Any]]):
    """A map as its pairs, so that keys may repeat, and be what no dict takes."""


@dataclass(frozen=True, slots=True)
class Token:
    """Bytes that stand in a body as they are."""

    msgpack: bytes
    json: bytes


def record(seed: int, number: int) -> Raw:
    """The record of this number in the series of this seed."""
    random = Random(seed << 32 | number)
    model, content_type, document = random.choice(_GOOD)(random)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        _mutate(document, random)
    body = (_to_json if content_type == _JSON else _to_msgpack)(document, random)[:LONGEST]
    value: bytes | None = _damage(body, random) if random.random() < 0.25 else body
    if random.random() < 0.01:
        value = random.choice((None, b"", random.randbytes(random.randrange(64))))
    headers: Headers = [(b"model-key", model.encode()), (b"correlation-id", MARK_BYTES), (b"x-own", MARK_BYTES)]
    if content_type != _MSGPACK or random.random() < 0.2:
        headers.append((b"content-type", content_type))
    if random.random() < 0.25:
        for _ in range(random.choice((1, 1, 2, 4))):
            random.choice(_OF_HEADERS)(headers, random)
    key = random.choice((None, None, b"", MARK_BYTES, b"\xff\x00"))
    if random.random() < 0.002:
        key = bytes(random.randrange(1 << 18))
    age_ms = random.choice(_AGES) if random.random() < 0.02 else 0
    return Raw(key, value, tuple(headers), age_ms)


_AGES: Final = (1, -1, 2_000_000, 2**40, -(2**40))

# good jobs ----------------------------------------------------------------------------------------------------------

_MSGPACK: Final = b"application/msgpack"
_JSON: Final = b"application/json"
_FORMATS: Final = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "UINT8": "B", "BOOL": "?", "FP16": "e"}

Good = tuple[str, bytes, Pairs]


def _numbers(datatype: str, count: int, random: Random) -> list[Any]:
    if datatype == "BOOL":
        return [random.random() < 0.5 for _ in range(count)]
    if count > 1_000:
        return [1] * count
    if datatype.startswith("FP"):
        sign = -1 if random.random() < 0.05 else 1  # which one of the models does not take
        return [sign * random.randrange(100) / 4 for _ in range(count)]
    return [random.randrange(100) for _ in range(count)]


def _entry(name: str, datatype: str, shape: list[int], content_type: bytes, random: Random) -> Pairs:
    count = math.prod(shape)
    data: Any
    if datatype == "BYTES":
        data = [random.choice((MARK, "", "é", MARK)) for _ in range(count)]
    else:
        data = _numbers(datatype, count, random)
        if content_type == _MSGPACK and random.random() < 0.8:
            data = struct.pack(f"<{count}{_FORMATS[datatype]}", *data)
        elif content_type == _JSON and len(shape) == 2 and random.random() < 0.3:
            data = [data[start : start + shape[1]] for start in range(0, count, shape[1] or 1)]
    return Pairs([["name", name], ["datatype", datatype], ["shape", list(shape)], ["data", data]])


def _document(inputs: list[Pairs], random: Random) -> Pairs:
    document = Pairs([["inputs", inputs]])
    if random.random() < 0.5:
        document.append(["id", f"{MARK}-1"])
    if random.random() < 0.2:
        document.append(["parameters", Pairs([[MARK, MARK], ["a", [1, Pairs([["b", None]])]]])])
    if random.random() < 0.2:
        document.append(["outputs", [Pairs([["name", random.choice(("y", "total", "text", MARK))]])]])
    if random.random() < 0.02:  # past `msgpack_body.SMALL`, where the other reader begins
        document.append(["more", "x" * random.choice((66_000, 140_000))])
    random.shuffle(document)
    return document


def _one_input(model: str, datatype: str, *, columns: int | None = None) -> Callable[[Random], Good]:
    def good(random: Random) -> Good:
        content_type = random.choice((_MSGPACK, _MSGPACK, _JSON))
        shape = [random.choice((0, 1, 1, 2, 5)), columns or random.randrange(1, 5)]
        if random.random() < 0.01:
            shape = [1_000, 30] if columns is None and random.random() < 0.7 else [1_500, 1]
        return model, content_type, _document([_entry(f"{MARK}-x", datatype, shape, content_type, random)], random)

    return good


def _sum(random: Random) -> Good:
    content_type = random.choice((_MSGPACK, _JSON))
    rows = random.choice((0, 1, 2))
    entries = [_entry(name, kind, [rows, 2], content_type, random) for name, kind in (("a", "FP32"), ("b", "INT32"))]
    return stores.SUM, content_type, _document(entries, random)


def _of_any_datatype(random: Random) -> Good:
    return _one_input(stores.DOUBLE, random.choice(tuple(_FORMATS)))(random)


_GOOD: Final = (
    _one_input(stores.DOUBLE, "FP32"),
    _one_input(stores.DOUBLE, "FP32"),
    _one_input(stores.FUSSY, "FP32", columns=1),
    _one_input(stores.UPPER, "BYTES", columns=1),
    _sum,
    _of_any_datatype,
)


# the structure of a body --------------------------------------------------------------------------------------------

_DEEP: Final = 2_000


def _lists(depth: int) -> Token:
    return Token(b"\x91" * depth + b"\xc0", b"[" * depth + b"]" * depth)


_SCALARS: Final = (
    *(None, True, False, 0, -1, 1, 2, 127, 255, 256, 65_535, 65_536, 2**24, 2**31, 2**32, 2**53 + 1, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), 400_000_000, 1_001, 100_001),
    *(0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, 70_000.0, float("nan"), float("inf"), float("-inf")),
    *("", "\0", f"{MARK}\n{MARK}\r\x1b[31m", "é\u2028\u202e", "\ud800", "\udfff", MARK * 60, "inputs", "data", "y"),
    *(b"", b"\0", b"\xff\xfe", b"\x01" * 8, MARK_BYTES, b"\x00" * 4_096),
    *("FP32", "FP64", "FP16", "BF16", "INT8", "INT64", "UINT64", "UINT8", "BOOL", "BYTES", "fp32", "FP128"),
)
_TOKENS: Final = (
    Token(b"\xc1", b"}"),
    Token(b"\xd6\xff\x00\x00\x00\x01", b"1e999"),  # a timestamp
    Token(b"\xc7\x0c\xff" + b"\xff" * 12, b"-1e999"),  # a timestamp of too many nanoseconds
    Token(b"\xd4\x05a", b"9" * 5_000),  # an extension; more digits than Python reads
    Token(b"\xc7\x00\x05", b"NaN"),
    Token(b"\xc9\xff\xff\xff\xff\x01", b"-Infinity"),
    Token(b"\xdd\xff\xff\xff\xff", b"Infinity"),
    Token(b"\xdf\xff\xff\xff\xff", b"nan"),
    Token(b"\xdc\xff\xff" * 300, b"[" * 300),
    Token(b"\xde\x03\xff" * 300, b'{"a":' * 300),
    Token(b"\xdc\x03\xff" * 900, b"[[],"),
    Token(b"\xdb\xff\xff\xff\xff", b'"'),
    Token(b"\xc6\xff\xff\xff\xff", b"'a'"),
    Token(b"\xc6\x00\x00\x00\x04\x00\x00\x80\x3f", b"1.0"),
    Token(b"\xa2\xc3\x28", b'"\xc3\x28"'),  # not UTF-8
    Token(b"\xa3\xed\xa0\x80", b'"\\ud800"'),  # half of a surrogate pair
    Token(b"\xca\x7f\xc0\x00\x00", b"1E+2"),
    Token(b"\xdd\x00\x00\x07\xd0" + b"\x90" * 2_000, b"[" + b"[]," * 2_000 + b"[]]"),
    Token(b"\xde\x00\x64" + b"\xc0\x80" * 100, b'{"a":1,"a":2}'),
    _lists(30),
    _lists(600),
    _lists(_DEEP),
)
_SHAPES: Final[tuple[list[Any], ...]] = (
    *([], [0], [1], [-1], [0, 0], [0, 1], [1, 0], [2, 2], [1, 1, 1], [1] * 4, [1] * 5, [1] * 9, [1] * 3_000),
    *([0, 400_000_000], [400_000_000, 0], [0, 2**62, 2**62], [2**62, 2**62, 0], [2**32, 2**32], [2**64 - 1], [2**63]),
    *([1_000, 1], [1_001, 1], [1, 100_000], [0, 100_000], [1, 100_001], [0, 100_001], [-1, -1], [-2, 2], [0, -1]),
    *([1.0, 1.0], [1, True], [1, None], ["1", "1"], [[1, 1]], [10**18, 0, 10**18]),
)
_KEYS: Final = ("id", "inputs", "outputs", "parameters", "name", "datatype", "shape", "data", "model_name", "", MARK)


def _mutate(document: Pairs, random: Random) -> None:
    random.choice(_OF_STRUCTURE)(document, random)


def _places(node: Any) -> list[tuple[list[Any], int]]:
    """Every value of a document as the list that holds it and its index there; of long lists only the beginning."""
    found: list[tuple[list[Any], int]] = []
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if type(node) is Pairs:
            for pair in node:
                found.append((pair, 1))
                nodes.append(pair[1])
        elif type(node) is list:
            for index in range(min(len(node), 8)):
                found.append((node, index))
                nodes.append(node[index])
    return found


def _maps(document: Pairs) -> list[Pairs]:
    return [document, *(held[index] for held, index in _places(document) if type(held[index]) is Pairs)]


def _tensors(document: Pairs) -> list[Pairs]:
    return [found for found in _maps(document) if any(pair[0] == "shape" for pair in found)] or [document]


def _put(entry: Pairs, key: str, value: Any) -> None:
    for pair in entry:
        if pair[0] == key:
            pair[1] = value
            return
    entry.append([key, value])


def _replace(document: Pairs, random: Random) -> None:
    if places := _places(document):
        held, index = random.choice(places)
        held[index] = random.choice(_SCALARS if random.random() < 0.7 else _TOKENS)


def _drop(document: Pairs, random: Random) -> None:
    found = random.choice(_maps(document))
    if found:
        del found[random.randrange(len(found))]


def _repeat_a_key(document: Pairs, random: Random) -> None:
    found = random.choice(_maps(document))
    if found:
        pair = random.choice(found)
        found.insert(random.randrange(len(found) + 1), [pair[0], random.choice((*_SCALARS, pair[1]))])


def _rename_a_key(document: Pairs, random: Random) -> None:
    found = random.choice(_maps(document))
    if found:
        # A key that a dict cannot take (a list), or that only msgpack can spell.
        random.choice(found)[0] = random.choice((*_KEYS, 1, None, 2.5, b"id", [1], random.choice(_TOKENS)))


def _more_keys(document: Pairs, random: Random) -> None:
    found = random.choice(_maps(document))
    found.extend([f"{MARK}{index}", index] for index in range(random.choice((1, 1, 1, 70, 70, 1_030))))


def _wrap(document: Pairs, random: Random) -> None:
    if places := _places(document):
        held, index = random.choice(places)
        inner = held[index]
        held[index] = random.choice(([inner], Pairs([["name", inner]]), [inner, inner], [[[inner]]]))


def _swap(document: Pairs, random: Random) -> None:
    places = _places(document)
    if len(places) > 1:
        (one, i), (other, j) = random.sample(places, 2)
        if type(one[i]) not in (list, Pairs) and type(other[j]) not in (list, Pairs):  # or they might hold themselves
            one[i], other[j] = other[j], one[i]


def _repeat_a_tensor(document: Pairs, random: Random) -> None:
    for pair in document:
        if pair[0] == "inputs" and type(pair[1]) is list and pair[1]:
            pair[1] = pair[1] * random.choice((2, 2, 9, 9, 9, 70))


def _reshape(document: Pairs, random: Random) -> None:
    entry = random.choice(_tensors(document))
    shape = random.choice(_SHAPES)
    _put(entry, "shape", deepcopy(shape))
    if random.random() < 0.8 and all(type(size) is int and size >= 0 for size in shape):
        count = math.prod(shape)
        if count <= 100_001 and (count < 64 or random.random() < 0.05):
            _put(entry, "data", random.choice((bytes(4 * count), [0.5] * count)))


def _retype(document: Pairs, random: Random) -> None:
    entry = random.choice(_tensors(document))
    _put(entry, "datatype", random.choice(("FP32", "FP64", "FP16", "BF16", "INT8", "UINT64", "BOOL", "BYTES", "X")))
    if random.random() < 0.5:
        _put(
            entry, "data", random.choice((b"", b"\x02", b"\xff" * 4, bytes(8), [1.0], [300], [-1], [2**64 - 1], [MARK]))
        )


def _resize(document: Pairs, random: Random) -> None:
    for pair in random.choice(_tensors(document)):
        if pair[0] == "data" and type(pair[1]) in (bytes, list):
            data = pair[1]
            pair[1] = random.choice(
                (data[:-1], data + data[:1], data * 2, data[:0], data * (300 if len(data) < 64 else 1))
            )


def _crowd(document: Pairs, random: Random) -> None:
    """Many small things: a list of thousands where one value was."""
    if places := _places(document):
        held, index = random.choice(places)
        count = random.choice((1_025, 3_000))
        crowd: Any = [random.choice(_SCALARS[:40])] * count
        if random.random() < 0.3:
            one, other = random.choice(((b"\x90", b"[]"), (b"\x80", b"{}"), (b"\x91\xc0", b"[null]")))
            crowd = Token(b"\xdd" + count.to_bytes(4, "big") + one * count, b"[" + b",".join([other] * count) + b"]")
        held[index] = crowd


_OF_STRUCTURE: Final = (
    *(_replace, _replace, _replace, _drop, _repeat_a_key, _rename_a_key, _more_keys, _wrap, _swap),
    *(_repeat_a_tensor, _reshape, _reshape, _retype, _resize, _crowd),
)


# bodies -------------------------------------------------------------------------------------------------------------

_PACK: Final = msgpack.Packer(unicode_errors="surrogatepass").pack
_FLAT: Final = frozenset({Pairs, list, Token, bytes})  # what a list must not hold to be written at once
_LIES: Final = (0, 1, 15, 1_023, 65_535, 2**24, 2**31, 2**32 - 1)


class _Body:
    """What is written of a body, up to where it is long enough: written out, what was multiplied can take gigabytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def append(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size > LONGEST:
            raise _LongEnoughError

    def of(self, write: Callable[[Any], None], document: Any) -> bytes:
        """All that `write` appends."""
        with suppress(_LongEnoughError):
            write(document)
        return b"".join(self._parts)


class _LongEnoughError(Exception):
    pass


def _to_msgpack(document: Any, random: Random) -> bytes:
    lie = random.randrange(40) == 0
    out = _Body()

    def write(node: Any) -> None:
        kind = type(node)
        if kind is Token:
            out.append(node.msgpack)
        elif kind is list and not lie and _FLAT.isdisjoint(map(type, node)):
            out.append(_PACK(node))
        elif kind is Pairs or kind is list:
            length = len(node)
            if lie and random.random() < 0.3:
                length = random.choice((length + 1, max(0, length - 1), random.choice(_LIES)))
            small, long = (0x80, 0xDF) if kind is Pairs else (0x90, 0xDD)
            out.append(bytes([small | length]) if length < 16 else bytes([long]) + length.to_bytes(4, "big"))
            for inner in node:
                if kind is Pairs:
                    write(inner[0])
                    write(inner[1])
                else:
                    write(inner)
        else:
            out.append(_PACK(node))

    return out.of(write, document)


def _to_json(document: Any, random: Random) -> bytes:
    out = _Body()

    def write(node: Any) -> None:
        kind = type(node)
        if kind is Token:
            out.append(bytes(node.json))
        elif kind is Pairs:
            for index, (key, value) in enumerate(node):
                out.append(b"," if index else b"{")
                write(_as_key(key))
                out.append(b":")
                write(value)
            out.append(b"}" if node else b"{}")
        elif kind is list and not _FLAT.isdisjoint(map(type, node)):
            for index, inner in enumerate(node):
                out.append(b"," if index else b"[")
                write(inner)
            out.append(b"]" if node else b"[]")
        else:
            text = node.decode("latin-1") if kind is bytes else node
            out.append(json.dumps(text, ensure_ascii=random.random() < 0.7).encode("utf-8", "surrogatepass"))

    return out.of(write, document)


def _as_key(key: Any) -> Any:
    return key if isinstance(key, str | Token) else str(key)


_SPANS: Final = (
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
    b"\x00",
    b"\xff",
    b"[",
)
_ENCODINGS: Final = ("utf-16", "utf-32", "utf-8-sig", "utf-7")


def _damage(body: bytes, random: Random) -> bytes:
    """The body with a few bytes changed, put in, left out, cut off, put behind."""
    for _ in range(random.choice((1, 1, 2, 4))):
        size = len(body)
        if not size:
            break
        at = random.randrange(min(size, 4_096))
        match random.randrange(8):
            case 0:
                body = body[:at] + bytes([random.randrange(256)]) + body[at + 1 :]
            case 1:
                body = body[:at] + bytes([body[at] ^ (1 << random.randrange(8))]) + body[at + 1 :]
            case 2:
                body = body[:at] + random.choice(_SPANS) + body[at:]
            case 3:
                body = body[:at] + body[at + random.randrange(1, 9) :]
            case 4:
                body = body[:at]
            case 5:
                body += random.choice((b"\x00", b" ", b"\xc0", body, b"{}", b"a"))
            case 6:
                body = body[:at] + body[at : at + 40] * random.choice((2, 50)) + body[at + 40 :]
            case _:
                body = body.decode("latin-1").encode(random.choice(_ENCODINGS)) if size < 500 else body[::-1]
    return body


# headers ------------------------------------------------------------------------------------------------------------

_TRACE: Final = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_VALUES: Final = {
    b"model-key": (
        *(b"", None, b"/", b"..", b"../double", b"a\nb", b"\xff", b"a" * 128, b"a" * 129, b"CON", b"-x", b"x\0"),
        *(b"double", b"sum", b"broken", b"no-such-model", b"double ", "dóuble".encode(), b"%s%n"),
    ),
    b"model-version": (
        *(b"1", b"01", b"2", b"0", b"9" * 18, b"9" * 19, b"-1", b"+1", b"1.0", b"1e3", b"\xd9\xa1", b"", None),
        *(b"stable", b"canary", b"a" * 64, b"a" * 65, b"latest\n"),
    ),
    b"content-type": (
        _MSGPACK,
        _JSON,
        b"",
        None,
        b"application/JSON",
        b"text/plain",
        b"application/json; charset=utf-8",
    ),
    b"correlation-id": (b"", None, b"\xff\x00", b"\r\n", MARK_BYTES * 50),
    b"expires-at": (b"0", b"1", b"9" * 15, b"9" * 16, b"-1", b"1.5", b"", None, b"soon", b"\x00", b"1 ", b"1_000"),
    b"traceparent": (_TRACE, _TRACE.upper(), b"ff" + _TRACE[2:], b"01" + _TRACE[2:] + b"-\xff\n", b"", None),
    b"tracestate": (b"a=1", b"\n", b"\xff" * 600, None),
    b"dlq-reason": (b"poison", MARK_BYTES, None),
    b"dlq-replays": (b"3", b"-1", b"many", None, b"9" * 400),
    b"dlq-message": (MARK_BYTES, b"two\nlines"),
    b"job-position": (b"a/1/2",),
    b"Model-Key": (b"double",),
    b"": (b"", MARK_BYTES, None),
}
_NAMES: Final = tuple(_VALUES)
_ODD_NAMES: Final = (
    *(b"\xff\xfe", b"model-key\xff", b"dlq-\xff", b"\xed\xa0\x80", b"\xc0\x80", b"x" * 5_000, "é\u202e".encode()),
    *(b"a\nb", b"\0", b"\x1b[31m"),
)


def _set(headers: Headers, random: Random) -> None:
    name = random.choice(_NAMES)
    value = random.choice(_VALUES[name])
    # In its place, before it, or behind it: the last stands.
    headers[:] = [header for header in headers if header[0] != name or random.random() < 0.5]
    headers.insert(random.randrange(len(headers) + 1), (name, value))


def _leave_out(headers: Headers, random: Random) -> None:
    if headers:
        del headers[random.randrange(len(headers))]


def _void(headers: Headers, random: Random) -> None:
    if headers:
        at = random.randrange(len(headers))
        headers[at] = headers[at][0], None


def _flip(headers: Headers, random: Random) -> None:
    if headers:
        at = random.randrange(len(headers))
        name, value = headers[at]
        headers[at] = (
            (_damage(name, random), value) if random.random() < 0.4 else (name, _damage(value or b"x", random))
        )


def _odd(headers: Headers, random: Random) -> None:
    headers.insert(random.randrange(len(headers) + 1), (random.choice(_ODD_NAMES), random.choice((MARK_BYTES, None))))


def _huge(headers: Headers, random: Random) -> None:
    headers.append((b"x-huge", MARK_BYTES * random.choice((100, 1_200, 20_000))))


def _many(headers: Headers, random: Random) -> None:
    headers.extend([(random.choice((b"", b"h", b"model-version")), None)] * random.choice((10, 10, 100, 1_100)))


_OF_HEADERS: Final = (_set, _set, _set, _set, _leave_out, _void, _flip, _flip, _odd, _huge, _many)
