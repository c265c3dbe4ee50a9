"""The one Watch of this process, found by pages and routes alike. Knows neither of them."""

import functools
import os
from pathlib import Path

from app.feed import Watch

RUNS_DIR = "HYBRID_RUNS_DIR"
"""Environment variable that holds the runs directory."""


def watch() -> Watch:
    """The watch over the runs directory of this process."""
    return _watch(Path(os.environ.get(RUNS_DIR, "runs")).resolve())


@functools.cache
def _watch(runs_dir: Path) -> Watch:
    return Watch(runs_dir)
