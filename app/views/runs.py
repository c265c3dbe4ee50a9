"""Every run under the directory as a table that can be searched. Pure."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from app.views import words
from trainer_core.telemetry.rundir import RunSummary


@dataclass(frozen=True)
class Line:
    """One run."""

    name: str
    address: str
    """Of its Live page, from the page's own."""
    task: str
    state: str
    step: int
    progress: float | None
    """Percent of the steps asked for; None where nobody said how many."""
    phase: str
    started: str
    """UTC, to the minute; empty before it is known."""
    because: str


def joined(names: Sequence[str]) -> str:
    """Names of runs as one word of an address, whatever signs they have."""
    return ",".join(name.replace("%", "%25").replace(",", "%2C") for name in names)


def parted(text: str) -> list[str]:
    """The names that ``joined`` made one word of."""
    return [unquote(name) for name in text.split(",") if name]


def lines(runs: Sequence[RunSummary], asked: str = "") -> list[Line]:
    """The runs in their order that have every word of ``asked`` in their name, task, state, start or reason."""
    wanted = asked.lower().split()
    found = [_line(run) for run in runs]
    return [line for line in found if all(word in _text(line) for word in wanted)]


def _line(run: RunSummary) -> Line:
    status = run.status
    total = status.total_steps
    return Line(
        name=run.name,
        address=f"/?{urlencode({'run': run.name}, quote_via=quote)}",
        task=run.task,
        state=status.state,
        step=status.step,
        progress=100.0 * min(1.0, status.step / total) if total else None,
        phase=status.phase.value if status.phase is not None else words.ABSENT,
        started=time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.started)) if run.started else "",
        because=status.because,
    )


def _text(line: Line) -> str:
    return f"{line.name} {line.task} {line.state} {line.started} {line.because}".lower()
