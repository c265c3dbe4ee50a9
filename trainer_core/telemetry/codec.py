"""Records <-> bytes, the same in the journal and on the wire. Knows no file and no socket.

A step record is one little-endian block, because there are many of them and charts want columns:

    u64 presence bitmap (bit i: field i is not None) | f64 per scalar field, in ``STEP_FIELDS`` order | u32 n | f32 x n

Integers below 2**53 are exact in f64; a phase is its index in ``PHASES``; NaN and None are different things and both
survive. Every other record is MessagePack, tagged by its kind.
"""

import array
import struct
import sys
import types
import zlib
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Record, Row, StepRecord, kind_of

PROTOCOL = 1
"""Version of the wire and of the journal; a reader refuses any other."""

_VECTOR = "layer_grad_norms"
STEP_FIELDS: tuple[str, ...] = tuple(f for f in StepRecord.__struct_fields__ if f != _VECTOR)
PHASES: tuple[Phase, ...] = tuple(Phase)
_PHASE_INDEX = {phase: float(i) for i, phase in enumerate(PHASES)}
_HEAD = struct.Struct(f"<Q{len(STEP_FIELDS)}d")
_COUNT = struct.Struct("<I")
_ENVELOPE = struct.Struct("<qdq")


class CodecError(Exception):
    """Bytes that are not what they should be."""


class RawRow(msgspec.Struct, frozen=True, array_like=True):
    """A journal row as it is stored and sent."""

    seq: int
    time: float
    attempt: int
    kind: str
    body: bytes
    crc: int

    @property
    def intact(self) -> bool:
        """Whether the checksum over every other field holds."""
        return self.crc == checksum(self.seq, self.time, self.attempt, self.kind, self.body)


def checksum(seq: int, time: float, attempt: int, kind: str, body: bytes) -> int:
    """CRC-32 of a whole row."""
    return zlib.crc32(body, zlib.crc32(kind.encode(), zlib.crc32(_ENVELOPE.pack(seq, time, attempt))))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> tuple[str, bytes]:
    """(kind, body) of a record. Raises CodecError for what is none, or holds values of other types."""
    try:
        if isinstance(record, StepRecord):
            return "step", _encode_step(record)
        return kind_of(record), _encoder.encode(record)
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError, struct.error) as error:
        raise CodecError(f"a {type(record).__name__} cannot be encoded: {error}") from None


def _encode_step(record: StepRecord) -> bytes:
    present, values = 0, []
    for i, field in enumerate(STEP_FIELDS):
        value = getattr(record, field)
        if value is None:
            values.append(0.0)
            continue
        present |= 1 << i
        values.append(_PHASE_INDEX[value] if isinstance(value, Phase) else float(value))
    vector = record.layer_grad_norms
    if vector is None:
        return _HEAD.pack(present, *values)
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return _HEAD.pack(present, *values) + _COUNT.pack(len(packed)) + packed.tobytes()


def _readers() -> list[Callable[[float], Any]]:
    hints = get_type_hints(StepRecord)
    readers: list[Callable[[float], Any]] = []
    for field in STEP_FIELDS:
        hint = hints[field]
        kinds = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
        if Phase in kinds:
            readers.append(lambda value: PHASES[int(value)])
        else:
            readers.append(int if int in kinds else float)
    return readers


_STEP_READERS = _readers()


def decode(kind: str, body: bytes) -> Record:
    """The record of a body. Raises CodecError."""
    try:
        if kind == "step":
            return _decode_step(body)
        record: Record = _decoder.decode(body)
    except (msgspec.MsgspecError, struct.error, ValueError, IndexError, TypeError) as error:
        raise CodecError(f"a {kind} record cannot be decoded: {error}") from None
    if kind_of(record) != kind:
        raise CodecError(f"a row says {kind} and holds {kind_of(record)}")
    return record


def _decode_step(body: bytes) -> StepRecord:
    present, *values = _HEAD.unpack_from(body)
    fields: dict[str, Any] = {
        field: _STEP_READERS[i](values[i]) if present >> i & 1 else None for i, field in enumerate(STEP_FIELDS)
    }
    if len(body) > _HEAD.size:
        (count,) = _COUNT.unpack_from(body, _HEAD.size)
        fields[_VECTOR] = struct.unpack_from(f"<{count}f", body, _HEAD.size + _COUNT.size)
    return StepRecord(**fields)


def decode_row(raw: RawRow) -> Row:
    """A checked row. Raises CodecError when the checksum does not hold or the body cannot be read."""
    if not raw.intact:
        raise CodecError(f"row {raw.seq} is damaged: its checksum does not hold")
    return Row(raw.seq, raw.time, raw.attempt, decode(raw.kind, raw.body))


def step_offset(field: str) -> tuple[int, int]:
    """(bit, byte offset) of a scalar field in a step body, for readers that want whole columns."""
    index = STEP_FIELDS.index(field)
    return index, 8 + 8 * index
