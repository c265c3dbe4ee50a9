"""Every transition of every command, as a table and as a file. Pure; escapes nothing, draws nothing."""

import csv
import io
import time
from dataclasses import dataclass, fields

from app.store import Snapshot
from app.views.commands import title
from trainer_core.spec.commands import kind_of, spoken_for
from trainer_core.spec.records import CommandChanged


@dataclass(frozen=True)
class Entry:
    """One row of the audit."""

    time: str
    """UTC."""
    actor: str
    """Name of the key that signed."""
    on_behalf_of: str
    """Whom its holder says it acted for; a word, no proof."""
    command: str
    state: str
    step: int
    phase: str
    before: str
    after: str
    reason: str
    detail: str
    kind: str
    command_id: str
    state_rev: int
    attempt: int
    seq: int

    @property
    def by(self) -> str:
        """Actor and whom it acted for, as the filter names them."""
        return spoken_for(self.actor, self.on_behalf_of)


def audit(snapshot: Snapshot, by: str = "", state: str = "", words: str = "") -> list[Entry]:
    """Newest first; of one actor (``Entry.by``), one state, or with these words in any column."""
    found = []
    for row in reversed(snapshot.events[CommandChanged]):
        change = row.record
        if not isinstance(change, CommandChanged):
            continue
        entry = Entry(
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.time)), change.actor, change.on_behalf_of,
            title(change.command),
            change.state.value, change.step, change.phase.value if change.phase is not None else "",
            change.before or "", change.after or "", change.reason,
            change.detail or (change.refusal.value if change.refusal else ""),
            kind_of(change.command), change.command_id, change.state_rev, row.attempt, row.seq,
        )  # fmt: skip
        text = " ".join(str(getattr(entry, field.name)) for field in fields(entry)).casefold()
        if by in ("", entry.by) and state in ("", entry.state) and words.casefold() in text:
            found.append(entry)
    return found


def as_csv(entries: list[Entry]) -> str:
    """The same as a file. A cell that a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(Entry)])
    for entry in entries:
        writer.writerow([_harmless(getattr(entry, field.name)) for field in fields(Entry)])
    return out.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
