"""Sealed segments: old rows of a journal in Parquet files, read back as rows or as columns. Knows no SQLite, no socket.

``segments-JOURNAL_ID/FIRST-LAST-HASH.parquet``: the name says which rows a file holds and what its bytes are, so the
listing of the folder is the manifest and one rename publishes a segment. Step fields are real columns; every row keeps
its own checksum, and a row whose columns do not give its bytes again is stored as bytes.
"""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trainer_core.spec.errors import RunError
from trainer_core.telemetry.codec import RawRow, StepLayout

if TYPE_CHECKING:
    import polars as pl

SEGMENT_ROWS = 50_000
KEPT_ROWS = 20_000
"""The newest rows are never sealed: a live reader, the agent and a resume find them in journal.db."""
BULK = ("step", "stretch", "explained", "system", "metrics", "health")
"""Kinds that leave journal.db once they are sealed; the rare ones stay there too, where they are found by kind."""
FOLDER = "segments-"
"""Before the journal's id."""
ENVELOPE = ("seq", "time", "attempt", "kind", "crc", "body")
VECTOR = "layer_grad_norms"
_NAME = re.compile(r"(\d{12,})-(\d{12,})-([0-9a-f]{32})\.(parquet|parquet\.damaged)")


class SegmentDamaged(RunError):
    """A sealed file whose bytes are not what its name says, or that cannot be read."""


class Segment(msgspec.Struct, frozen=True, order=True):
    """One file: rows ``first`` to ``last``, both included."""

    first: int
    last: int
    digest: str
    path: Path

    def content(self) -> bytes:
        """The file's bytes. Raises SegmentDamaged when they are not what was sealed."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise SegmentDamaged(f"{self.path} cannot be read: {error.strerror}") from None
        if digest_of(content) != self.digest:
            raise SegmentDamaged(f"{self.path} is damaged: its checksum does not hold")
        return content

    def frame(self, columns: Sequence[str] | None = None) -> "pl.DataFrame":
        """The columns (all of them if none are named). Raises SegmentDamaged."""
        return table_in(self.content(), f"{self.path}", columns)


class Loss(NamedTuple):
    """Rows ``first`` to ``last`` whose segment is no longer what it was, and what became of it."""

    first: int
    last: int
    what: str


class Segments:
    """The sealed part of one journal, as it was at the last look. Holds one segment in memory at a time."""

    def __init__(self, run_dir: Path, journal_id: str, layout: StepLayout) -> None:
        self.folder = folder_of(run_dir, journal_id)
        self._layout = layout
        self._held: tuple[str, pl.DataFrame] | None = None
        self._bad: set[str] = set()
        self.all = listed(self.folder)

    def refresh(self) -> bool:
        """Look again; whether anything has changed."""
        before, self.all = self.all, listed(self.folder)
        return self.all != before

    def covered(self, after_seq: int) -> int:
        """The last seq up to which every row after ``after_seq`` is sealed; ``after_seq`` when none is."""
        for segment in self.all:
            if segment.first <= after_seq + 1 <= segment.last:
                after_seq = segment.last
        return after_seq

    def next(self, after_seq: int) -> Segment | None:
        """The segment that holds the first sealed row after ``after_seq``."""
        return next((segment for segment in self.all if segment.last > after_seq), None)

    def rows(self, segment: Segment, after_seq: int, limit: int, up_to: int) -> list[RawRow]:
        """Rows of one segment with ``after_seq < seq <= up_to``, oldest first. Raises SegmentDamaged."""
        import polars as pl

        table = self._table(segment)
        page = table.filter((pl.col("seq") > after_seq) & (pl.col("seq") <= up_to)).head(limit)
        return raw_rows(page, self._layout)

    def of_kind(self, kind: str) -> Iterable[RawRow]:
        """All sealed rows of a kind, oldest first; those of a damaged segment are left out."""
        import polars as pl

        for segment in self.all:
            with contextlib.suppress(SegmentDamaged):
                yield from raw_rows(self._table(segment).filter(pl.col("kind") == kind), self._layout)

    def _table(self, segment: Segment) -> "pl.DataFrame":
        if segment.digest in self._bad:
            raise SegmentDamaged(f"{segment.path} is damaged: its checksum does not hold")
        if self._held is None or self._held[0] != segment.digest:
            try:
                self._held = (segment.digest, segment.frame())
            except SegmentDamaged:
                self._bad.add(segment.digest)
                raise
        return self._held[1]

    def set_damaged_aside(self, through: int) -> list[Loss]:
        """Rename damaged files so that no reader meets them again; what they held, and what is gone up to ``through``.

        The writer's, at start. A loss is told once: a file that was set aside earlier is none, one that is gone is.
        """
        known = listed(self.folder, "parquet.damaged")
        losses = self._gone(through, [*self.all, *known])
        for segment in self.all:
            try:
                segment.content()
            except SegmentDamaged:
                target = segment.path.with_name(f"{segment.path.name}.damaged")
                with contextlib.suppress(OSError):
                    segment.path.rename(target)
                    losses.append(Loss(segment.first, segment.last, f"damaged and set aside as {target.name}"))
        self.refresh()
        return sorted(losses)

    def _gone(self, through: int, there: Sequence[Segment]) -> list[Loss]:
        """Ranges up to ``through`` that no file holds, whole or damaged."""
        gone, reached = [], 0
        for segment in sorted(there):
            if segment.first > reached + 1:
                gone.append(Loss(reached + 1, segment.first - 1, "gone"))
            reached = max(reached, segment.last)
        if reached < through:
            gone.append(Loss(reached + 1, through, "gone"))
        return gone


def folder_of(run_dir: Path, journal_id: str) -> Path:
    """Where the segments of a journal are."""
    return Path(run_dir) / f"{FOLDER}{journal_id}"


def listed(folder: Path, ending: str = "parquet") -> tuple[Segment, ...]:
    """The segments of a folder by first row; files of other names are no segments."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if (match := _NAME.fullmatch(path.name)) and match[4] == ending:
                found.append(Segment(int(match[1]), int(match[2]), match[3], path))
    return tuple(sorted(found))


def table_in(content: bytes, what: str, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """The table in a segment's bytes. Raises SegmentDamaged, naming ``what``, when there is none or columns lack."""
    import polars as pl

    try:
        return pl.read_parquet(io.BytesIO(content), columns=None if columns is None else list(columns))
    except pl.exceptions.PolarsError as error:
        raise SegmentDamaged(f"{what} cannot be read: {error}") from None


def digest_of(content: bytes) -> str:
    """What a file's name says of its bytes: BLAKE2b, 128 bits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def publish(folder: Path, rows: Sequence[RawRow], layout: StepLayout) -> Segment:
    """Seal rows of rising seq: written, synced, read back and compared, then renamed into place and synced again.

    Raises SegmentDamaged when what was read back is not what was given; OSError when the disk fails.
    """
    folder.mkdir(exist_ok=True)
    unfinished = folder / f".unfinished-{os.getpid()}"
    try:
        written, back = _written(unfinished, rows, layout, frozenset())
        differing = frozenset(row.seq for row, read in zip(rows, back, strict=True) if row != read)
        if differing:
            written, back = _written(unfinished, rows, layout, differing)
        if back != list(rows):
            raise SegmentDamaged(f"{unfinished} does not give its rows again")
        target = folder / f"{written.first:012}-{written.last:012}-{written.digest}.parquet"
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(folder)
    _sync_folder(folder.parent)
    return Segment(written.first, written.last, written.digest, target)


def _written(
    path: Path, rows: Sequence[RawRow], layout: StepLayout, as_bytes: frozenset[int]
) -> tuple[Segment, list[RawRow]]:
    """The file on the disk, and the rows that it gives."""
    buffer = io.BytesIO()
    table_of(rows, layout, as_bytes).write_parquet(buffer, compression="zstd", statistics=False)
    content = buffer.getvalue()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    segment = Segment(rows[0].seq, rows[-1].seq, digest_of(content), path)
    return segment, raw_rows(segment.frame(), layout)


def table_of(rows: Sequence[RawRow], layout: StepLayout, as_bytes: frozenset[int] = frozenset()) -> "pl.DataFrame":
    """Rows as a table: envelope, a Float64 column for each field of a step (null: not measured), layer norms.

    Damaged steps, and those whose seq is in ``as_bytes``, keep their body instead of columns.
    """
    import polars as pl

    from trainer_core.telemetry.columns import field_columns

    columns = [row.kind == "step" and row.seq not in as_bytes and row.intact for row in rows]
    table = pl.DataFrame(
        {
            "seq": [row.seq for row in rows],
            "time": [row.time for row in rows],
            "attempt": [row.attempt for row in rows],
            "kind": [row.kind for row in rows],
            "crc": [row.crc for row in rows],
            "body": [None if apart else row.body for row, apart in zip(rows, columns, strict=True)],
            "block": [row.body if apart else None for row, apart in zip(rows, columns, strict=True)],
            VECTOR: [layout.vector(row.body) if apart else None for row, apart in zip(rows, columns, strict=True)],
        },
        schema={
            "seq": pl.Int64,
            "time": pl.Float64,
            "attempt": pl.Int64,
            "kind": pl.String,
            "crc": pl.Int64,
            "body": pl.Binary,
            "block": pl.Binary,
            VECTOR: pl.List(pl.Float32),
        },
    )
    return table.with_columns(field_columns("block", layout)).select(*ENVELOPE, *layout.fields, VECTOR)


def raw_rows(table: "pl.DataFrame", layout: StepLayout) -> list[RawRow]:
    """The rows of a table, bytes and all."""
    rows = []
    for seq, time, attempt, kind, crc, body, *fields in table.select(*ENVELOPE, *layout.fields, VECTOR).iter_rows():
        content = layout.block(fields[:-1], fields[-1]) if body is None else body
        rows.append(RawRow(seq, time, attempt, kind, content, crc))
    return rows


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
