"""Time at work: a run's clock without its pauses. Pure."""

import numpy as np

from app.table import F64

PAUSE_S, PAUSE_STEPS = 10.0, 20.0
"""A silence between two steps that is longer than this and than so many usual steps is a pause, or the time between
two processes, and is left out."""
SAMPLED = 1000
"""Gaps between steps that tell the usual one."""


def at_work(times: F64, pause: float | None = None) -> F64:
    """Seconds at work until each of ``times`` (Unix seconds, rising): silences above ``pause`` count as none.

    ``pause``: seconds; None: by the pace of ``times`` themselves.
    """
    gaps = np.diff(times, prepend=times[:1])
    limit = shortest_pause(times) if pause is None else pause
    return np.cumsum(np.where((gaps > limit) | (gaps < 0), 0.0, gaps))


def shortest_pause(times: F64) -> float:
    """Seconds of silence that are still work at the pace of these steps: one of a large model may take a minute."""
    gaps = np.diff(times)
    known = gaps[:: max(1, len(gaps) // SAMPLED)]
    if len(known) < 2:  # one gap may be a step or a pause
        return PAUSE_S
    middle = (len(known) - 1) // 2
    return max(PAUSE_S, PAUSE_STEPS * float(np.partition(known, middle)[middle]))
