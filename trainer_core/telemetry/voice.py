"""What a run says, to its journal and to a function of the user's, and what it is told. Mute until it has a journal."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from trainer_core.spec.records import Record
from trainer_core.telemetry.reporter import Reporter

_WAITING = 1000
"""Records of other threads that wait for the step's thread, which hands them to ``on_record``; the oldest go first."""


class Voice:
    """One run's mouth and ear. ``on_record(record, attempt)`` is called in the step's thread alone."""

    def __init__(self, on_record: Callable[[Record, int], None] | None) -> None:
        self._on_record = on_record
        self._from_machine: deque[tuple[Record, int]] = deque(maxlen=_WAITING)
        self.reporter: Reporter | None = None
        """Set when the journal is open; a rank that has none stays without."""

    def say(self, record: Record, attempt: int) -> None:
        """From the step's thread."""
        if self.reporter is not None:
            self.reporter.report(record, attempt)
        if self._on_record is not None:
            while self._from_machine:
                self._on_record(*self._from_machine.popleft())
            self._on_record(record, attempt)

    def say_of_machine(self, record: Record, attempt: int) -> None:
        """From another thread: into the journal now, to ``on_record`` when the step's thread says something."""
        if self.reporter is not None:
            self.reporter.report(record, attempt)
        if self._on_record is not None:
            self._from_machine.append((record, attempt))

    def take_commands(self) -> Iterable[Any]:
        """The commands that have come since."""
        return self.reporter.take_commands() if self.reporter is not None else ()

    def is_open(self, alert_id: str) -> bool:
        """Whether an alert that was raised has not been resolved yet."""
        return self.reporter is not None and alert_id in self.reporter.open_alerts

    def flush(self) -> None:
        """Return when all that was said is committed."""
        if self.reporter is not None:
            self.reporter.flush()

    def close(self) -> None:
        """Commit what is left and let go of the journal."""
        if self.reporter is not None:
            self.reporter.close()
