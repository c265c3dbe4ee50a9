"""Time at work: a run's clock without its pauses. Pure."""

import numpy as np

from app.table import F64

PAUSE_S = 10.0
"""A longer silence between two steps is a pause, or the time between two processes, and is left out."""


def at_work(times: F64) -> F64:
    """Seconds at work until each of ``times`` (Unix seconds, rising): silences above PAUSE_S count as none."""
    gaps = np.diff(times, prepend=times[:1])
    return np.cumsum(np.where((gaps > PAUSE_S) | (gaps < 0), 0.0, gaps))
