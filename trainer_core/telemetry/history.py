"""The past of a run in chunks of columns, for those who want all of it at once. Knows no socket and no drawing.

Row by row a million steps take a minute; as columns of sealed segments they take a second or two.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass

import polars as pl

from trainer_core.spec.records import Row
from trainer_core.telemetry.codec import CodecError, RawRow, decode_row
from trainer_core.telemetry.columns import ENVELOPE, steps_table
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.segments import VECTOR, SegmentDamaged, raw_rows

_PAGE = 20_000
_STEP = "step"


@dataclass(frozen=True)
class Chunk:
    """A stretch of the journal: every intact row after the last chunk's ``last_seq``, but those nobody wants."""

    steps: pl.DataFrame
    """Step records by seq: seq, time, attempt, kind, a Float64 column for each field of the journal as stored, and
    the layers' gradient norms as a list."""
    rows: list[Row]
    """The other wanted rows, by seq."""
    last_step: Row | None
    """The newest step record, whole."""
    last_seq: int


def chunks(reader: JournalReader, kinds: Set[str], latest: Set[str] = frozenset(), after: int = 0) -> Iterator[Chunk]:
    """All rows after a seq. Of rows that are no steps only ``kinds``, and of ``latest`` only the newest in a chunk.

    Damaged rows and ranges are left out and noted in ``reader.damaged``. Raises JournalError.
    """
    while (chunk := _next(reader, after, kinds, latest)) is not None:
        after = chunk.last_seq
        yield chunk


def _next(reader: JournalReader, after: int, kinds: Set[str], latest: Set[str]) -> Chunk | None:
    segment = reader.sealed.next(after)
    if segment is not None and segment.first == after + 1:
        try:
            return _of_segment(reader, segment.frame(), kinds, latest)
        except SegmentDamaged:
            pass  # what is left of it is in the file
    raw = reader.raw_rows(after, _PAGE, None if segment is None else segment.last)
    if not raw:
        if segment is None:
            return None
        reader.damaged.update(range(after + 1, segment.last + 1))
        return _next(reader, segment.last, kinds, latest)
    intact = [row for row in raw if row.intact]
    reader.damaged.update(row.seq for row in raw if not row.intact)
    steps = [row for row in intact if row.kind == _STEP]
    rest = _wanted([row for row in intact if row.kind != _STEP], kinds, latest)
    last = _decoded(reader, steps[-1:])
    return Chunk(steps_table(steps, reader.layout), _decoded(reader, rest), last[0] if last else None, raw[-1].seq)


def _of_segment(reader: JournalReader, table: pl.DataFrame, kinds: Set[str], latest: Set[str]) -> Chunk:
    fields = [*ENVELOPE, *reader.layout.fields, VECTOR]
    apart = (pl.col("kind") == _STEP) & pl.col("body").is_null()
    steps = table.filter(apart)
    whole = raw_rows(table.filter(~apart & pl.col("kind").is_in([_STEP, *kinds, *latest])), reader.layout)
    reader.damaged.update(row.seq for row in whole if not row.intact)
    odd = [row for row in whole if row.kind == _STEP and row.intact]
    columns = steps.select(fields)
    if odd:
        columns = pl.concat([columns, steps_table(odd, reader.layout).select(fields)]).sort("seq")
    last = _decoded(reader, [*odd[-1:], *raw_rows(steps.tail(1), reader.layout)])
    rest = _wanted([row for row in whole if row.kind != _STEP], kinds, latest)
    newest = max(last, key=lambda row: row.seq, default=None)
    return Chunk(columns, _decoded(reader, rest), newest, int(table["seq"][-1]))


def _wanted(rows: list[RawRow], kinds: Set[str], latest: Set[str]) -> list[RawRow]:
    newest = {row.kind: row.seq for row in rows if row.kind in latest}
    return [row for row in rows if row.kind in kinds or newest.get(row.kind) == row.seq]


def _decoded(reader: JournalReader, raw: list[RawRow]) -> list[Row]:
    rows = []
    for row in raw:
        try:
            rows.append(decode_row(row, reader.layout))
        except CodecError:
            reader.damaged.add(row.seq)
    return rows
