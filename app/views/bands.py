"""Phase bands over the step axis, merged when there are more than a chart can show. Knows no colour."""

from dataclasses import dataclass

import numpy as np

from app.store import PHASES, Snapshot
from app.table import F64
from trainer_core.spec.phases import Phase

MOST = 300
"""Bands drawn one by one; with more in view, each of MOST cells shows the phase that took most of it."""
MOST_LETTERS = 26


@dataclass(frozen=True)
class Bands:
    """Begin and end of every band, by phase; ``merged`` says that a cell stands for ``cell`` steps."""

    edges: dict[Phase, F64]
    """(n, 2): first and last x of each band."""
    merged: bool
    cell: float

    @property
    def letters(self) -> list[tuple[float, Phase]]:
        """Where to write phase letters; none when the bands are too many to name."""
        if sum(len(edges) for edges in self.edges.values()) > MOST_LETTERS:
            return []
        return [(float(low + high) / 2, phase) for phase, edges in self.edges.items() for low, high in edges]


def bands(snapshot: Snapshot, low: float, high: float) -> Bands:
    """The phase bands between two steps."""
    starts, codes = snapshot.spans["start"], snapshot.spans["phase"]
    if not len(starts) or snapshot.last is None or snapshot.own_loop:
        return Bands({phase: np.empty((0, 2)) for phase in PHASES}, False, 1.0)
    end = max(float(snapshot.last.step), float(starts[-1])) + 0.5
    first = max(0, int(np.searchsorted(starts, low, "right")) - 1)
    stop = int(np.searchsorted(starts, high, "right"))
    begins = starts[first:stop] - 0.5  # not cut at ``low``: a window that slides on keeps its bands as they are
    ends = np.minimum(np.append(starts[first + 1 : stop] - 0.5, min(end, high) if stop == len(starts) else high), high)
    shown = codes[first:stop]
    merged = len(begins) > MOST
    if merged:
        begins, ends, shown = _merge(begins, ends, shown)
    edges = {phase: np.column_stack([begins[shown == code], ends[shown == code]]) for code, phase in enumerate(PHASES)}
    return Bands(edges, merged, (high - low) / MOST if merged else 1.0)


def _merge(begins: F64, ends: F64, codes: F64) -> tuple[F64, F64, F64]:
    """Cells of equal width, each of the phase with most steps in it; equal neighbours become one band."""
    cells = np.linspace(begins[0], ends[-1], MOST + 1)
    share = np.empty((len(PHASES), MOST))
    boundaries = np.append(begins, ends[-1])
    for code in range(len(PHASES)):
        taken = np.concatenate([[0.0], np.cumsum(np.where(codes == code, ends - begins, 0.0))])
        share[code] = np.diff(np.interp(cells, boundaries, taken))
    winner = np.argmax(share, axis=0)
    first = np.concatenate([[0], np.flatnonzero(np.diff(winner)) + 1])
    last = np.append(first[1:], MOST)
    return cells[first], cells[last], winner[first].astype(np.float64)
