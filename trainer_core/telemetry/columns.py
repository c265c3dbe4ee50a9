"""Packed step blocks as polars columns. Knows no file: only the layout of a block and the types of its fields."""

from typing import get_type_hints

import polars as pl

from trainer_core.spec.records import StepRecord
from trainer_core.telemetry.codec import PHASES, STEP_FIELDS, RawRow, StepLayout

ENVELOPE = ("seq", "time", "attempt", "kind")


def field_columns(source: str, layout: StepLayout) -> list[pl.Expr]:
    """A Float64 column, as stored, for each field of the blocks in column ``source``; null is "not measured"."""
    present = pl.col(source).bin.head(8).bin.reinterpret(dtype=pl.UInt64, endianness="little")
    return [_stored(source, present, name, layout) for name in layout.fields]


def _stored(source: str, present: pl.Expr, name: str, layout: StepLayout) -> pl.Expr:
    bit, offset = layout.offset(name)
    value = pl.col(source).bin.slice(offset, 8).bin.reinterpret(dtype=pl.Float64, endianness="little")
    return pl.when(present & pl.lit(1 << bit, dtype=pl.UInt64) != 0).then(value).alias(name)


def typed(table: pl.DataFrame, layout: StepLayout) -> pl.DataFrame:
    """Stored columns with the names and types of this version's step record, phases in words."""
    hints = get_type_hints(StepRecord)
    return table.select(*ENVELOPE, *[_typed(name, hints[name], layout) for name in STEP_FIELDS])


def _typed(name: str, hint: object, layout: StepLayout) -> pl.Expr:
    whole = "int" in str(hint)
    if name not in layout.fields:  # a journal of before there was this field
        return pl.lit(None, dtype=pl.Int64 if whole else pl.Float64).alias(name)
    if name == "phase":
        words = {float(i): phase.value for i, phase in enumerate(PHASES)}
        return pl.col(name).replace_strict(words, return_dtype=pl.String)
    return pl.col(name).cast(pl.Int64) if whole else pl.col(name)


def steps_table(rows: list[RawRow], layout: StepLayout) -> pl.DataFrame:
    """The intact step rows among ``rows`` as stored columns, with the layers' norms as a list."""
    steps = [row for row in rows if row.kind == "step" and row.intact]
    table = pl.DataFrame(
        {
            "seq": [row.seq for row in steps],
            "time": [row.time for row in steps],
            "attempt": [row.attempt for row in steps],
            "kind": [row.kind for row in steps],
            "body": [row.body for row in steps],
            "layer_grad_norms": [layout.vector(row.body) for row in steps],
        },
        schema={
            "seq": pl.Int64,
            "time": pl.Float64,
            "attempt": pl.Int64,
            "kind": pl.String,
            "body": pl.Binary,
            "layer_grad_norms": pl.List(pl.Float32),
        },
    )
    names = [*ENVELOPE, *layout.fields, "layer_grad_norms"]
    return table.with_columns(field_columns("body", layout)).select(names)
