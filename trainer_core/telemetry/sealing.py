"""The process that seals old rows, so that the trainer does not: reads journal.db, adds segments, deletes nothing.

    python -m trainer_core.telemetry.sealing RUN_DIR [--rows N] [--kept N]

Started by the reporter when enough rows have gathered; gone when they are sealed. Whatever ends it, the journal stays
whole: a segment exists when its name does, and the writer deletes a row only after that.
"""

import argparse
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from trainer_core.spec.errors import RunError
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.segments import KEPT_ROWS, SEGMENT_ROWS, Segment, publish

_LOCK = "sealing.lock"
_NICENESS = 10


def seal(run_dir: Path, rows: int = SEGMENT_ROWS, kept: int = KEPT_ROWS) -> list[Segment]:
    """Seal every full segment but the newest ``kept`` rows. Empty when another process is at it.

    Raises RunError for no journal or a segment that does not read back, OSError when the disk fails.
    """
    sealed = []
    with closing(JournalReader(run_dir)) as reader, _alone(Path(run_dir)) as alone:
        while alone:
            first = reader.unsealed_from()
            if reader.last_seq() - kept < first + rows - 1:
                break
            page = reader.stored_rows(first - 1, rows, up_to=first + rows - 1)
            if not page:
                raise RunError(f"{run_dir}: rows {first} to {first + rows - 1} are missing; nothing was sealed")
            sealed.append(publish(reader.sealed.folder, page, reader.layout))
            reader.sealed.refresh()
    return sealed


@contextmanager
def _alone(run_dir: Path) -> Iterator[bool]:
    with (run_dir / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def start(run_dir: Path, rows: int, kept: int) -> "subprocess.Popen[bytes] | None":
    """Begin to seal in a process of its own, out of the trainer's way; None when it cannot be started."""
    command = [sys.executable, "-m", "trainer_core.telemetry.sealing", str(run_dir)]
    command += ["--rows", str(rows), "--kept", str(kept)]
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "POLARS_MAX_THREADS": "1"}
    with suppress(OSError), (run_dir / "agent.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    return None


def main() -> int:
    """Entry point of the sealing process."""
    parser = argparse.ArgumentParser(prog="trainer_core.telemetry.sealing")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--rows", type=int, default=SEGMENT_ROWS)
    parser.add_argument("--kept", type=int, default=KEPT_ROWS)
    options = parser.parse_args()
    os.nice(_NICENESS)
    try:
        seal(options.run_dir, options.rows, options.kept)
    except (RunError, OSError, sqlite3.Error) as error:
        print(f"sealing: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
