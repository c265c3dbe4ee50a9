"""Gradient norms by layer: now, and over the whole run as rows of a heatmap. Pure; knows no colour.

With many layers neighbours share a row, which shows the largest norm among them, and says so.
"""

from dataclasses import dataclass

import numpy as np

from app.layers import F32, LayerNorms
from app.store import Snapshot
from app.table import F64
from app.views.series import Window
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.severity import Severity

MOST_ROWS = 64


@dataclass(frozen=True)
class LayersView:
    """Rows in model order. T stretches of steps, R rows."""

    rows: tuple[str, ...]
    per_row: int
    """Layers that share a row, at most."""
    layers: int
    now_R: F64
    """The newest norms; empty before the first backward pass."""
    step: int
    low_step: float
    high_step: float
    """Ends of the step axis."""
    steps_T: F64
    """The middle of each stretch."""
    width: int
    """Steps of one stretch."""
    log_norms_TR: F64
    """log10 of the largest norm of each stretch; NaN: nothing was measured, or it was no number."""
    broken: tuple[tuple[float, str], ...]
    """(step, row) where a norm was no finite number."""
    low: float
    high: float
    """A layer below the one vanishes, above the other it explodes."""

    def severity(self, norm: float) -> Severity:
        """How bad a norm is."""
        if not np.isfinite(norm) or norm > self.high:
            return Severity.WARNING
        return Severity.CAUTION if norm < self.low else Severity.HEALTHY


def view(snapshot: Snapshot, config: Config | None, window: Window | None = None) -> LayersView:
    """The layers of a snapshot in a window of steps; without one, over the whole run."""
    first, last = (window or Window()).resolve(snapshot)
    found = snapshot.side.layers
    limits = ladders(config or Config())
    low, high = limits["layer_norm_low"].caution_below, limits["layer_norm_high"].warning_above
    per_row = -(-len(found.names) // MOST_ROWS) if found.names else 1
    rows = _names(found, per_row)
    middles, largest, width = found.between(first, last)
    grouped = _grouped(largest, per_row)
    finite = np.isfinite(grouped) & (grouped > 0)
    log_norms = np.log10(np.where(finite, grouped, np.nan)).round(2).astype(np.float64)
    broken = tuple((float(middles[t]), rows[r]) for t, r in np.argwhere(np.isinf(grouped))[-300:])
    return LayersView(
        rows=rows,
        per_row=per_row,
        layers=len(found.names),
        now_R=_grouped(found.now[None], per_row)[0] if len(found.now) else np.empty(0),
        step=found.step,
        low_step=first,
        high_step=last,
        steps_T=middles,
        width=width,
        log_norms_TR=log_norms,
        broken=broken,
        low=low if low is not None else 0.0,
        high=high if high is not None else np.inf,
    )


def _names(found: LayerNorms, per_row: int) -> tuple[str, ...]:
    """One name a row; those of a shared row are told by the first and the last."""
    if per_row == 1:
        return found.names
    groups = [found.names[at : at + per_row] for at in range(0, len(found.names), per_row)]
    return tuple(f"{group[0]} … {group[-1]}" if len(group) > 1 else group[0] for group in groups)


def _grouped(norms: F32, per_row: int) -> F64:
    """The largest norm of each row's layers; infinite when one of them is no number, NaN when none was measured."""
    if per_row == 1 or not norms.shape[1]:
        return norms.astype(np.float64)
    starts = np.arange(0, norms.shape[1], per_row)
    return np.fmax.reduceat(norms, starts, axis=1).astype(np.float64)
