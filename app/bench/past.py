"""A long recorded run, sealed as a trainer would have had it sealed. Measures nothing."""

from pathlib import Path

from app.bench.writer import records
from trainer_core.spec.records import Record, RunState, StepRecord
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.sealing import seal

BATCH = 5000


def long_run(run_dir: Path, steps: int) -> None:
    """A finished run of so many steps."""
    run_dir.mkdir(parents=True)
    writer, batch, taken = JournalWriter(run_dir), list[tuple[float, int, Record]](), 0

    def write() -> None:
        writer.append(batch)
        batch.clear()
        seal(run_dir)
        while writer.compact():
            pass

    for record in records():
        taken += isinstance(record, StepRecord)
        batch.append((1.7e9 + taken / 200, 0, record))
        if len(batch) >= BATCH:
            write()
        if taken == steps:
            break
    batch.append((1.7e9 + taken / 200, 0, RunState(steps, "finished", "all steps done")))
    write()
    writer.close()
