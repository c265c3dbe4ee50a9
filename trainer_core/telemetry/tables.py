"""Every record of a run as tables: one call, or a file. Reads journals with polars; knows no socket.

from trainer_core import read_run
read_run("runs/mine")                     one row a measured step
read_run("runs/mine", "metrics")          one row a step, one column a metric of your own
read_run("runs/mine", "alert-raised")     one row an alert; any kind of record works
read_run("runs/mine", "all")              every record: the columns of steps, the others as JSON in ``record``
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import polars as pl

from trainer_core.spec.errors import UserError
from trainer_core.spec.records import Record, Row, StepRecord, kind_of
from trainer_core.telemetry.as_json import json_text
from trainer_core.telemetry.codec import STEP_FIELDS
from trainer_core.telemetry.exports import frame, write_table
from trainer_core.telemetry.salvage import opened

ALL = "all"
KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(Record))
ENDINGS = (".parquet", ".csv")
_PAGE = 20_000
_HEAD = {"seq": pl.Int64, "time": pl.Float64, "attempt": pl.Int64, "kind": pl.String}
_VECTOR = "layer_grad_norms"


def read_run(run_dir: Path | str, kind: str = "step", *, journal: str | None = None) -> pl.DataFrame:
    """The records of one kind, or of all, in the order they were said: seq, time (Unix seconds), attempt, kind, fields.

    null is "not measured", NaN is NaN. What holds more than one value (a command, the lines of a checklist) is JSON.
    Works on live and finished runs. ``journal``: the id of one that was damaged and set aside; what is good of it, with
    seq of its own. Raises UserError for what is no run, no kind or no journal.
    """
    if kind == "step":
        return frame(run_dir, journal)
    if kind == ALL:
        parts = [_everything(page) for page in _pages(Path(run_dir), journal)]
        return pl.concat(parts) if parts else _everything([])
    if kind not in KINDS:
        raise UserError(f"{kind}: no such kind of record; one of {', '.join((ALL, *KINDS))}")
    rows = [row for page in _pages(Path(run_dir), journal) for row in page if kind_of(row.record) == kind]
    return _one_kind(kind, rows)


def export_table(run_dir: Path, out: Path, kind: str = "step", *, journal: str | None = None) -> int:
    """Write ``read_run``'s table to a .parquet or .csv file; returns its rows. Raises UserError for another name."""
    if out.suffix not in ENDINGS:
        raise UserError(f"{out}: the name must end in .parquet or .csv")
    table = read_run(run_dir, kind, journal=journal)
    write_table(table if out.suffix == ".parquet" else table.with_columns(_flat(table)), out)
    return table.height


def _pages(run_dir: Path, journal: str | None) -> Iterator[list[Row]]:
    with closing(opened(run_dir, journal)) as reader:
        page = reader.rows(0, _PAGE)
        while page:
            yield page
            page = reader.rows(page[-1].seq, _PAGE)


def _head(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {
        "seq": [row.seq for row in rows],
        "time": [row.time for row in rows],
        "attempt": [row.attempt for row in rows],
        "kind": [kind_of(row.record) for row in rows],
    }


def _everything(rows: Sequence[Row]) -> pl.DataFrame:
    """Every row: the fields of steps as columns, of other records the step and the whole as JSON."""
    hints = get_type_hints(StepRecord)
    schema: dict[str, Any] = {**_HEAD, **{name: _dtype(hints[name]) for name in STEP_FIELDS}}
    columns = _head(rows)
    steps = [row.record if isinstance(row.record, StepRecord) else None for row in rows]
    for name in STEP_FIELDS:
        columns[name] = [_plain(getattr(step, name)) if step is not None else None for step in steps]
    columns["step"] = [row.record.step for row in rows]
    columns[_VECTOR] = [None if step is None else step.layer_grad_norms for step in steps]
    columns["record"] = [None if isinstance(row.record, StepRecord) else json_text(row.record) for row in rows]
    return pl.DataFrame(columns, schema={**schema, _VECTOR: pl.List(pl.Float32), "record": pl.String}, strict=False)


def _one_kind(kind: str, rows: Sequence[Row]) -> pl.DataFrame:
    """One column a field; of metrics one column a name."""
    columns, schema = _head(rows), dict[str, Any](_HEAD)
    (said,) = [k for k in get_args(Record) if str(k.__struct_config__.tag) == kind]
    hints = get_type_hints(said)
    for field in msgspec.structs.fields(said):
        values = [getattr(row.record, field.name) for row in rows]
        if kind == "metrics" and field.name == "values":
            for name in dict.fromkeys(name for value in values for name in value):
                column = name
                while column in columns:
                    column = f"values.{column}"
                columns[column], schema[column] = [value.get(name) for value in values], pl.Float64
            continue
        schema[field.name] = _dtype(hints[field.name])
        nested = schema[field.name] == pl.String
        columns[field.name] = [_text(value) if nested else _plain(value) for value in values]
    return pl.DataFrame(columns, schema=schema, strict=False)


def _dtype(hint: Any) -> Any:
    kinds = set(get_args(hint) or (hint,)) - {type(None)}
    for found, dtype in ((bool, pl.Boolean), (float, pl.Float64), (int, pl.Int64)):
        if kinds == {found}:
            return dtype
    return pl.String


def _text(value: Any) -> str | None:
    """A text as it is, an enumeration as its word, anything nested as JSON."""
    if value is None:
        return None
    if isinstance(value, IntEnum):
        return str(value.name)
    return str(value) if isinstance(value, str) else json_text(value)


def _plain(value: Any) -> Any:
    """A number or a text as polars takes it."""
    return str(value) if isinstance(value, str) else value


def _flat(table: pl.DataFrame) -> list[pl.Expr]:
    """CSV holds no lists: they become JSON texts."""
    nested = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.List)]
    return [
        pl.col(name).map_elements(lambda values: json_text(list(values)), return_dtype=pl.String) for name in nested
    ]
