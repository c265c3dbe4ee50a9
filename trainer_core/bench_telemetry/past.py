"""Late join and replay of long runs, and what their rows take on disk. Writes the runs it measures."""

from pathlib import Path

from trainer_core.bench_telemetry import watcher
from trainer_core.bench_telemetry.records import VECTOR, a_record
from trainer_core.bench_telemetry.results import Join
from trainer_core.telemetry.journal import FILE, JournalReader, JournalWriter
from trainer_core.telemetry.sealing import seal

_BATCH = 5000


def late_join(run_dir: Path, rows: int) -> Join:
    """A run of ``rows`` steps, sealed as a trainer would have had it sealed, opened by a process that knows nothing."""
    run_dir.mkdir()
    writer = JournalWriter(run_dir)
    for first in range(1, rows + 1, _BATCH):
        steps = range(first, min(first + _BATCH, rows + 1))
        writer.append([(float(step), 0, a_record(step, VECTOR)) for step in steps])
        seal(run_dir)
        while writer.compact():
            pass
    writer.close()
    reader = JournalReader(run_dir)
    sealed = sum(segment.last - segment.first + 1 for segment in reader.sealed.all)
    size = sum(segment.path.stat().st_size for segment in reader.sealed.all) + (run_dir / FILE).stat().st_size
    reader.close()
    found = watcher.joined(run_dir)
    if found["rows"] != rows:
        raise RuntimeError(f"{found['rows']} of {rows} rows came back")
    return Join(rows, sealed, found["first"], found["all"], found["memory_mb"], found["table"], size / rows)
