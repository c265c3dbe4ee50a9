"""Baseline runs on disk: which one a run is compared with, and what its journal says. Changes nothing."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from trainer_core.spec.errors import UserError
from trainer_core.spec.records import Row, RunStarted
from trainer_core.telemetry.comparison import Told, notes_on, refused_because, told
from trainer_core.telemetry.journal import JournalReader

_PAGE = 2000
"""Rows read from a journal at a time."""


def rows_of(reader: JournalReader) -> Iterator[Row]:
    """Every row of the journal, a page at a time."""
    page = reader.rows(0, _PAGE)
    while page:
        yield from page
        page = reader.rows(page[-1].seq, _PAGE)


def read(run_dir: Path) -> Told:
    """What the journal of a baseline says. Raises UserError when there is none, JournalError when it is damaged."""
    if not (run_dir / "journal.db").is_file():
        raise UserError(f"--baseline {run_dir}: there is no run (no journal.db in it)")
    with closing(JournalReader(run_dir)) as reader:
        return told(str(run_dir), rows_of(reader))


def named(run_dir: Path) -> Path | None:
    """The baseline that ``hybrid train --baseline`` stored in the run; None when there is none."""
    with closing(JournalReader(run_dir)) as reader:
        begun = [row.record for row in reader.events("run-started") if isinstance(row.record, RunStarted)]
    found = next((record.baseline for record in reversed(begun) if record.baseline), None)
    return None if found is None else Path(os.path.normpath(run_dir / found))


def chosen(run_dir: Path, given: Path | None) -> tuple[Told | None, str]:
    """The baseline to compare ``run_dir`` with: the one given, else the one stored in it, if it is still there.

    Returns it and, where a stored one is gone, a sentence that says so. Raises UserError for a given one that is none.
    """
    if given is not None:
        if given.resolve() == run_dir.resolve():
            raise UserError(f"--baseline {given}: a run cannot be its own baseline")
        return read(given), ""
    stored = named(run_dir)
    if stored is None:
        return None, ""
    if not (stored / "journal.db").is_file():
        return None, f"its baseline run {stored} is gone: what follows is an estimate"
    return read(stored), ""


def checked(run_dir: Path, baseline: Path, run: RunStarted) -> tuple[str, tuple[str, ...]]:
    """(where, notes) of a baseline for a run that is about to start; ``where`` is relative to its directory.

    Raises UserError with a sentence saying what differs when the two could not be compared.
    """
    if baseline.resolve() == run_dir.resolve():
        raise UserError(f"--baseline {baseline}: a run cannot be its own baseline")
    base = read(baseline)
    why = refused_because(run, base)
    if why is not None:
        raise UserError(why)
    return os.path.relpath(baseline.resolve(), run_dir.resolve()), notes_on(run, base)
