"""A run's step records as polars columns, Parquet or CSV, straight from the packed blocks. Knows no socket.

import polars; from trainer_core.telemetry.exports import frame; frame("runs/my-run")
"""

import contextlib
from contextlib import closing
from pathlib import Path

import polars as pl

from trainer_core.spec.errors import RunError, UserError
from trainer_core.telemetry.columns import steps_table, typed
from trainer_core.telemetry.history import chunks
from trainer_core.telemetry.salvage import opened


def frame(run_dir: Path | str, journal: str | None = None) -> pl.DataFrame:
    """All intact step records: seq, time, attempt, kind, and every scalar field; null is "not measured", NaN is NaN.

    ``journal``: one that was set aside (``salvage``) instead of the run's.
    """
    with closing(opened(Path(run_dir), journal)) as reader:
        parts = [chunk.steps for chunk in chunks(reader, frozenset())]
        return pl.concat([typed(part, reader.layout) for part in (steps_table([], reader.layout), *parts)])


def export(run_dir: Path, out: Path) -> int:
    """Write the step records to a .parquet or .csv file; returns how many. Raises UserError for another name."""
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"{out}: the name must end in .parquet or .csv")
    table = frame(run_dir)
    write_table(table, out)
    return table.height


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write a .parquet or .csv file, the whole of it or none. Raises RunError."""
    part = out.with_name(f".{out.name}.part")
    try:
        if out.suffix == ".parquet":
            table.write_parquet(part, compression="zstd")
        else:
            table.write_csv(part)
        part.replace(out)
    except (OSError, pl.exceptions.PolarsError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        why = getattr(error, "strerror", None) or f"{error}".replace(f"{part}", f"{out}")
        raise RunError(f"{out}: cannot be written: {why}") from None
