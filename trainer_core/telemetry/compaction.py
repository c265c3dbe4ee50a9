"""The trainer's side of sealing: starts the sealing process when enough rows have gathered, deletes what it sealed.

Runs in the reporter's thread, a small piece at each tick. Knows no Parquet: another process reads and writes that.
"""

import subprocess
import time
from pathlib import Path

from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.sealing import start

_LOOK_S = 1.0
_AGAIN_S = 60.0
"""Seconds before a sealing process that failed is tried again."""


class Compaction:
    """Keeps journal.db short: seals every ``segment_rows`` rows, except the newest ``kept_rows``."""

    def __init__(self, run_dir: Path, segment_rows: int, kept_rows: int) -> None:
        self._run_dir, self._segment_rows, self._kept_rows = run_dir, segment_rows, kept_rows
        self._process: subprocess.Popen[bytes] | None = None
        self._look_at = 0.0

    def tick(self, journal: JournalWriter) -> None:
        """One small piece of work, at most a few milliseconds. Raises sqlite3.Error."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        if self._process is not None:
            failed = self._process.poll()
            if failed is None:
                return
            self._process = None
            if failed:
                self._look_at = now + _AGAIN_S
                return
        if journal.compact(self._kept_rows):
            self._look_at = now  # more at the next tick
        elif journal.unsealed(self._kept_rows) >= self._segment_rows:
            self._process = start(self._run_dir, self._segment_rows, self._kept_rows)
