"""Records <-> bytes, the same in the journal and on the wire. Knows no file and no socket.

A step record is one little-endian block, because there are many of them and charts want columns:

    u64 presence bitmap (bit i: field i is not None) | f64 per field of the journal's ``step_fields`` | u32 n | f32 x n

Integers below 2**53 are exact in f64; a phase is its index in ``PHASES``; NaN and None are different things and both
survive. Every other record is MessagePack, tagged by its kind.
"""

import array
import operator
import struct
import sys
import types
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Record, Row, StepRecord, kind_of

PROTOCOL = 1
"""Version of the wire and of the journal; a reader refuses any other."""

_VECTOR = "layer_grad_norms"
STEP_FIELDS: tuple[str, ...] = tuple(f for f in StepRecord.__struct_fields__ if f != _VECTOR)
PHASES: tuple[Phase, ...] = tuple(Phase)
_PHASE_INDEX = {phase: float(i) for i, phase in enumerate(PHASES)}
_COUNT = struct.Struct("<I")
_ENVELOPE = struct.Struct("<qdq")
_MOST_PLANS = 1000


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
        """Whether the checksum over every other field holds; not where a damaged file gives one of another type."""
        try:
            return self.crc == checksum(self.seq, self.time, self.attempt, self.kind, self.body)
        except (struct.error, TypeError, AttributeError, ValueError):
            return False


def checksum(seq: int, time: float, attempt: int, kind: str, body: bytes) -> int:
    """CRC-32 of a whole row."""
    return zlib.crc32(body, zlib.crc32(kind.encode(), zlib.crc32(_ENVELOPE.pack(seq, time, attempt))))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class StepLayout:
    """The scalar fields of a step block in their order. Each journal names its own, so a later version still reads it.

    A field this program does not know is passed over; one the layout does not have is None.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self.fields = tuple(fields)
        self._head = struct.Struct(f"<Q{len(self.fields)}d")
        hints = get_type_hints(StepRecord)
        self._readers = [_reader(hints[field]) if field in hints else None for field in self.fields]
        self._plans: dict[int, _Plan] = {}
        self._full = (1 << len(self.fields)) - 1
        self._phase = self.fields.index("phase")
        known = set(StepRecord.__struct_fields__)
        if known.issuperset(self.fields):
            self._values: Callable[[StepRecord], Sequence[Any]] = operator.attrgetter(*self.fields)
        else:  # a journal of a later version: what this one does not measure is absent
            self._values = lambda record: [getattr(record, field, None) for field in self.fields]

    def offset(self, field: str) -> tuple[int, int]:
        """(bit, byte offset) of a field in a block, for readers that want whole columns. ValueError: it has none."""
        index = self.fields.index(field)
        return index, 8 + 8 * index

    def encode(self, record: StepRecord) -> bytes:
        """The block of a record."""
        values: list[Any] = list(self._values(record))
        values[self._phase] = None if record.phase is None else _PHASE_INDEX[record.phase]
        return self.block(values, record.layer_grad_norms)

    def block(self, values: Sequence[float | None], vector: Sequence[float] | None) -> bytes:
        """The block of field values as stored (a phase is its index) in the order of ``fields``."""
        present = self._full
        for i, value in enumerate(values):
            if value is None:
                present ^= 1 << i
        return self._block(present, [0.0 if value is None else value for value in values], vector)

    def vector(self, body: bytes) -> tuple[float, ...] | None:
        """The layer norms in a block; None when there are none. Raises struct.error."""
        if len(body) <= self._head.size:
            return None
        (count,) = _COUNT.unpack_from(body, self._head.size)
        return struct.unpack_from(f"<{count}f", body, self._head.size + _COUNT.size)

    def _block(self, present: int, values: Sequence[float], vector: Sequence[float] | None) -> bytes:
        if vector is None:
            return self._head.pack(present, *values)
        packed = array.array("f", vector)
        if sys.byteorder == "big":
            packed.byteswap()
        return self._head.pack(present, *values) + _COUNT.pack(len(packed)) + packed.tobytes()

    def decode(self, body: bytes) -> StepRecord:
        """The record of a block. Raises struct.error, ValueError, IndexError or TypeError for another layout's."""
        present, *values = self._head.unpack_from(body)
        plan = self._plans.get(present) or self._planned(present)
        for i, read in plan.reads:
            values[i] = read(values[i])
        vector = self.vector(body)
        if vector is not None and len(body) != self._head.size + _COUNT.size + 4 * len(vector):
            raise ValueError("a step block of another length")
        values.append(vector)
        values += plan.constants
        return StepRecord(*plan.arguments(values))

    def _planned(self, present: int) -> "_Plan":
        """How to read blocks with this bitmap: nearly all blocks of a run share a few."""
        constants: list[object] = [None]
        places = []
        for field in msgspec.structs.fields(StepRecord):
            if field.name == _VECTOR:
                places.append(len(self.fields))
            elif field.name in self.fields:
                i = self.fields.index(field.name)
                places.append(i if present >> i & 1 else len(self.fields) + 1)
            else:  # a journal of before there was this field
                places.append(len(self.fields) + 1 + len(constants))
                constants.append(None if field.required else field.default)
        reads = [(i, r) for i, r in enumerate(self._readers) if r not in (None, float) and present >> i & 1]
        plan = _Plan(reads, constants, operator.itemgetter(*places))
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[present] = plan
        return plan


class _Plan(NamedTuple):
    """``arguments`` picks the record's arguments from: the block's values, the vector, the constants."""

    reads: list[tuple[int, Callable[[float], Any]]]
    constants: list[object]
    arguments: Callable[[list[Any]], tuple[Any, ...]]


def _reader(hint: Any) -> Callable[[float], Any]:
    kinds = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
    if Phase in kinds:
        return lambda value: PHASES[int(value)]
    return int if int in kinds else float


PRESENT = StepLayout(STEP_FIELDS)
"""The layout of this version, which new journals get."""


def encode(record: Record, layout: StepLayout = PRESENT) -> tuple[str, bytes]:
    """(kind, body) of a record. Raises CodecError for what is none, or holds values of other types."""
    try:
        if isinstance(record, StepRecord):
            return "step", layout.encode(record)
        return kind_of(record), _encoder.encode(record)
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError, struct.error) as error:
        raise CodecError(f"a {type(record).__name__} cannot be encoded: {error}") from None


def decode(kind: str, body: bytes, layout: StepLayout = PRESENT) -> Record:
    """The record of a body. Raises CodecError."""
    try:
        if kind == "step":
            return layout.decode(body)
        record: Record = _decoder.decode(body)
    except (msgspec.MsgspecError, struct.error, ValueError, IndexError, TypeError) as error:
        raise CodecError(f"a {kind} record cannot be decoded: {error}") from None
    if kind_of(record) != kind:
        raise CodecError(f"a row says {kind} and holds {kind_of(record)}")
    return record


def decode_row(raw: RawRow, layout: StepLayout = PRESENT) -> Row:
    """A checked row. Raises CodecError when the checksum does not hold or the body cannot be read."""
    if not raw.intact:
        raise CodecError(f"row {raw.seq} is damaged: its checksum does not hold")
    return Row(raw.seq, raw.time, raw.attempt, decode(raw.kind, raw.body, layout))
