"""A chunk of history as arrays, before it becomes part of a store. Pure; knows nothing of events or drawing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from app.table import F64, I64
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictedStretch, Row

PREDICT = tuple(Phase).index(Phase.PREDICT)


@dataclass(frozen=True)
class Bands:
    """Steps and stretches together, by seq: where each begins, its phase and how many steps it is."""

    seq: I64
    step: F64
    phase: I64
    length: I64

    def changes(self) -> Iterator[tuple[int, int]]:
        """(step, phase index) where the phase changes or the step goes back: all that matters to phase bands."""
        new = np.ones(len(self.seq), dtype=np.bool_)
        new[1:] = (self.phase[1:] != self.phase[:-1]) | (self.step[1:] < self.step[:-1])
        yield from zip(self.step[new].astype(int).tolist(), self.phase[new].tolist(), strict=True)

    def first_seq(self) -> dict[int, int]:
        """Phase index -> seq of its first step."""
        phases, first = np.unique(self.phase, return_index=True)
        return {int(phase): int(self.seq[i]) for phase, i in zip(phases, first, strict=True)}


def step_columns(steps: pl.DataFrame, measured: Sequence[str]) -> dict[str, F64]:
    """The store's step columns; NaN where nothing was measured, also for a field this journal does not have."""
    absent = np.full(steps.height, np.nan)
    names = (*measured, "phase", "attempt", "time", "seq")
    return {name: floats(steps[name]) if name in steps.columns else absent for name in names}


def floats(column: pl.Series) -> F64:
    """A column as floats, null as NaN."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def not_finite(steps: pl.DataFrame, signals: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(signal, step, attempt) of every value that was measured and was no finite number, in the order of the rows."""
    known = [name for name in signals if name in steps.columns]
    bad = pl.any_horizontal(pl.col(name).is_not_null() & ~pl.col(name).is_finite() for name in known)
    for row in steps.filter(bad).select("step", "attempt", *known).iter_rows(named=True):
        for name in known:
            if row[name] is not None and not np.isfinite(row[name]):
                yield name, int(row["step"]), row["attempt"]


def bands(columns: dict[str, F64], stretches: Sequence[Row]) -> Bands:
    """Steps and predicted stretches, merged."""
    records = [row.record for row in stretches if isinstance(row.record, PredictedStretch)]
    order = np.argsort(
        seq := np.concatenate([columns["seq"].astype(np.int64), integers(row.seq for row in stretches)]), kind="stable"
    )
    step = np.concatenate([columns["step"], np.array([r.first_step for r in records], dtype=np.float64)])
    phase = np.concatenate([columns["phase"].astype(np.int64), np.full(len(records), PREDICT)])
    ones = np.ones(len(columns["seq"]), dtype=np.int64)
    length = np.concatenate([ones, integers(r.last_step - r.first_step + 1 for r in records)])
    return Bands(seq[order], step[order], phase[order], length[order])


def attempt_changes(columns: dict[str, F64], rows: Sequence[Row], before: int) -> list[tuple[int, int]]:
    """(seq, attempt) of every row whose attempt is another than that of the row before it."""
    seq = np.concatenate([columns["seq"].astype(np.int64), integers(row.seq for row in rows)])
    attempt = np.concatenate([columns["attempt"].astype(np.int64), integers(row.attempt for row in rows)])
    order = np.argsort(seq, kind="stable")
    seq, attempt = seq[order], attempt[order]
    new = attempt != np.concatenate([[before], attempt[:-1]])
    return list(zip(seq[new].tolist(), attempt[new].tolist(), strict=True))


def path_columns(
    columns: dict[str, F64], stretch_rows: Sequence[tuple[float, ...]], names: Sequence[str]
) -> dict[str, F64]:
    """Predicted losses of steps and of stretches, merged by seq; ``stretch_rows`` are in the order of ``names``."""
    known: npt.NDArray[np.bool_] = ~np.isnan(columns["predicted_loss"])
    source = {"loss": "predicted_loss", "low": "predicted_low", "high": "predicted_high"}
    block = np.array(stretch_rows, dtype=np.float64).reshape(len(stretch_rows), len(names))
    merged = {n: np.concatenate([columns[source.get(n, n)][known], block[:, i]]) for i, n in enumerate(names)}
    order = np.argsort(merged["seq"], kind="stable")
    return {name: values[order] for name, values in merged.items()}


def integers(values: Iterator[int]) -> I64:
    return np.fromiter(values, dtype=np.int64)


def stretches_of(rows: Sequence[Row]) -> list[PredictedStretch]:
    """The predicted stretches among rows."""
    return [row.record for row in rows if isinstance(row.record, PredictedStretch)]


def path_rows(row: Row) -> list[tuple[float, ...]]:
    """The predicted path of one stretch: one value a step, or both ends."""
    (stretch,) = stretches_of([row])
    count = len(stretch.expected_loss)
    steps = np.linspace(stretch.first_step, stretch.last_step, count) if count > 1 else [stretch.last_step]
    return [
        (float(step), loss, low, high, row.attempt, stretch.cycle, row.seq)
        for step, loss, low, high in zip(
            steps, stretch.expected_loss, stretch.expected_low, stretch.expected_high, strict=True
        )
    ]
