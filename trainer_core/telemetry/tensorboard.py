"""A run's numbers as TensorBoard event files, one folder an attempt. Needs the package tensorboard (an optional extra).

Tags: ``step/FIELD``, ``metrics/NAME``, ``validation/loss``, ``system/...``. What was not measured has no point.
"""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trainer_core.spec.errors import RunError, UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import MetricsMeasured, Record, Row, StepRecord, SystemMeasured, ValidationMeasured
from trainer_core.telemetry.codec import STEP_FIELDS
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.salvage import opened

MISSING = "this needs tensorboard, which is not installed: pip install 'hybrid-predictive-trainer[tensorboard]'"
_PAGE = 20_000
_NOT_CHARTED = ("step", "batch", "phase")


def export_events(run_dir: Path, out: Path, journal: str | None = None) -> int:
    """Write event files under ``out``; returns the number of values. Raises UserError without the package."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder")
    if any(out.glob("attempt-*")):
        raise UserError(f"{out}: already holds exported attempts; choose another folder")
    with closing(opened(run_dir, journal)) as reader:
        try:
            return _Events(out).write(_rows(reader))
        except OSError as error:
            raise RunError(f"{error.filename or out}: cannot be written: {error.strerror}") from None


class _Events:
    """One writer an attempt, opened when it has something to say. In this thread: what the disk refuses is raised."""

    def __init__(self, out: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise UserError(MISSING) from None
        self._event, self._summary, self._records = Event, Summary, RecordWriter
        self._out, self._writers = out, dict[int, Any]()

    def write(self, rows: Iterable[Row]) -> int:
        written = 0
        try:
            for row in rows:
                values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row.record)]
                if values:
                    summary = self._summary(value=values)
                    event = self._event(wall_time=row.time, step=row.record.step, summary=summary)
                    self._writer(row.attempt).write(event.SerializeToString())
                    written += len(values)
        finally:
            for writer in self._writers.values():
                writer.close()
        return written

    def _writer(self, attempt: int) -> Any:
        if attempt not in self._writers:
            folder = self._out / f"attempt-{attempt}"
            folder.mkdir(parents=True)
            now = time.time()
            name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
            self._writers[attempt] = self._records((folder / name).open("wb"))
            self._writers[attempt].write(self._event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        return self._writers[attempt]


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """(tag, value) of everything measured in a record."""
    match record:
        case StepRecord():
            for name in STEP_FIELDS:
                value = getattr(record, name)
                if value is not None and name not in _NOT_CHARTED and not isinstance(value, Phase):
                    yield f"step/{name}", float(value)
        case MetricsMeasured(values=values):
            for name, value in values.items():
                yield f"metrics/{name}", value
        case ValidationMeasured():
            yield "validation/loss", record.loss
            if record.accuracy is not None:
                yield "validation/accuracy", record.accuracy
        case SystemMeasured():
            yield from _numbers("system", record, ("step", "gpus"))
            for gpu in record.gpus:
                yield from _numbers(f"system/gpu{gpu.index}", gpu, ("index", "name"))
        case _:
            return


def _numbers(prefix: str, record: Any, without: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if value is not None and name not in without:
            yield f"{prefix}/{name}", float(value)


def _rows(reader: JournalReader) -> Iterator[Row]:
    page = reader.rows(0, _PAGE)
    while page:
        yield from page
        page = reader.rows(page[-1].seq, _PAGE)
