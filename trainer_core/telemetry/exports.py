"""A run's step records as polars columns, Parquet or CSV, straight from the packed blocks. Knows no socket.

import polars; from trainer_core.telemetry.exports import frame; frame("runs/my-run")
"""

from pathlib import Path
from typing import get_type_hints

import polars as pl

from trainer_core.spec.errors import RunError
from trainer_core.spec.records import StepRecord
from trainer_core.telemetry.codec import PHASES, STEP_FIELDS, RawRow, StepLayout
from trainer_core.telemetry.journal import JournalReader

_PAGE = 50_000


def frame(run_dir: Path | str) -> pl.DataFrame:
    """All intact step records: seq, time, attempt, kind, and every scalar field; null is "not measured", NaN is NaN."""
    reader = JournalReader(Path(run_dir))
    try:
        parts = []
        after = 0
        while raw := reader.raw_rows(after, _PAGE):
            after = raw[-1].seq
            steps = [row for row in raw if row.kind == "step" and row.intact]
            parts.append(_columns(steps, reader.layout))
        return pl.concat(parts) if parts else _columns([], reader.layout)
    finally:
        reader.close()


def _columns(rows: list[RawRow], layout: StepLayout) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "seq": [row.seq for row in rows],
            "time": [row.time for row in rows],
            "attempt": [row.attempt for row in rows],
            "kind": [row.kind for row in rows],
            "body": [row.body for row in rows],
        },
        schema={"seq": pl.Int64, "time": pl.Float64, "attempt": pl.Int64, "kind": pl.String, "body": pl.Binary},
    )
    present = pl.col("body").bin.head(8).bin.reinterpret(dtype=pl.UInt64, endianness="little")
    hints = get_type_hints(StepRecord)
    fields = [_field(name, hints[name], layout) for name in STEP_FIELDS]
    return table.with_columns(present.alias("present")).with_columns(fields).drop("body", "present")


def _field(name: str, hint: object, layout: StepLayout) -> pl.Expr:
    if name not in layout.fields:  # a journal of before there was this field
        return pl.lit(None, dtype=pl.Int64 if "int" in str(hint) else pl.Float64).alias(name)
    bit, offset = layout.offset(name)
    value = pl.col("body").bin.slice(offset, 8).bin.reinterpret(dtype=pl.Float64, endianness="little")
    known = pl.when(pl.col("present") & pl.lit(1 << bit, dtype=pl.UInt64) != 0).then(value)
    if name == "phase":
        words = {float(i): phase.value for i, phase in enumerate(PHASES)}
        return known.replace_strict(words, return_dtype=pl.String).alias(name)
    return (known.cast(pl.Int64) if "int" in str(hint) else known).alias(name)


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
