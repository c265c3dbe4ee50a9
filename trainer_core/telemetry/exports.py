"""A run's step records as polars columns, Parquet or CSV, straight from the packed blocks. Knows no socket.

import polars; from trainer_core.telemetry.exports import frame; frame("runs/my-run")
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl

from trainer_core.spec.errors import RunError
from trainer_core.telemetry.columns import ENVELOPE, steps_table, typed
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.segments import SegmentDamaged, raw_rows

_PAGE = 50_000


def frame(run_dir: Path | str) -> pl.DataFrame:
    """All intact step records: seq, time, attempt, kind, and every scalar field; null is "not measured", NaN is NaN."""
    with closing(JournalReader(Path(run_dir))) as reader:
        parts = [typed(part, reader.layout) for part in (steps_table([], reader.layout), *_parts(reader))]
        return pl.concat(parts).sort("seq")


def _parts(reader: JournalReader) -> Iterator[pl.DataFrame]:
    """The steps page by page: whole segments as columns, what is not sealed row by row."""
    after = 0
    while True:
        segment = reader.sealed.next(after)
        if segment is not None and segment.first == after + 1:
            try:
                steps = segment.frame().filter(pl.col("kind") == "step")
                yield steps.filter(pl.col("body").is_null()).select(*ENVELOPE, *reader.layout.fields)
                yield steps_table(raw_rows(steps.filter(pl.col("body").is_not_null()), reader.layout), reader.layout)
                after = segment.last
                continue
            except SegmentDamaged:
                pass  # page by page then, with what is left of it in the file
        if not (raw := reader.raw_rows(after, _PAGE, segment.last if segment else None)):
            if segment is None:
                return
            after = segment.last
            continue
        after = raw[-1].seq
        yield steps_table(raw, reader.layout)


def export(run_dir: Path, out: Path) -> int:
    """Write the step records to a .parquet or .csv file; returns how many. Raises RunError for another name."""
    if out.suffix not in (".parquet", ".csv"):
        raise RunError(f"{out}: the name must end in .parquet or .csv")
    table = frame(run_dir)
    try:
        if out.suffix == ".parquet":
            table.write_parquet(out, compression="zstd")
        else:
            table.write_csv(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return table.height
