"""What a resumed run must know of its earlier processes: read from journal and commands.db. Restores no weights.

A sticky setting applied after the checkpoint is applied again, in the order in which they were applied, and a pause
that held is a pause again; one that was still waiting goes on waiting, for its step and within its time to live. A
one-shot that had not ended is UNDONE_BY_RESTART and never carried out, and so is a remedy whose effect the checkpoint
does not hold.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainer_core.engine.inbox import Inbox
from trainer_core.spec.commands import (
    STICKY,
    AcceptedCommand,
    ApplyRemedy,
    CommandRequest,
    CommandState,
    Pause,
    Resume,
    Stop,
)
from trainer_core.spec.errors import RunError, WrongRun
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    AttemptStarted,
    CheckpointSaved,
    CommandChanged,
    PredictedStretch,
    RunStarted,
    StepRecord,
)
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.commands_db import accepted, set_damaged_aside
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.listening import check as check_listen
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import RunLock, claim

_PAGE = 5000


class History(msgspec.Struct):
    """The end of what the journal says."""

    step: int = 0
    attempt: int = 0
    state_rev: int = 0
    backward_passes: int = 0
    plain: bool = False
    baseline: str | None = None
    own_loop: bool = False
    world_size: int = 1
    open_alerts: tuple[tuple[str, str], ...] = ()
    """(alert id, rule) of alerts that were never resolved."""
    states: dict[str, CommandState] = {}
    """Last state of every command the journal knows."""
    applied_at: dict[str, int] = {}
    """Seq of each command's APPLIED row."""
    saved_at: dict[str, int] = {}
    """Seq of each checkpoint's row; where there is none, of the first attempt that began from it."""
    began: dict[int, tuple[int, int]] = {}
    """Attempt -> (attempt, step) of the checkpoint it went on from."""
    last_seq: int = 0
    accepted: tuple[AcceptedCommand, ...] = ()


class Opened(NamedTuple):
    """A run directory that is this process's now."""

    run_dir: Path
    """Absolute: a program may change its working directory while it trains."""
    lock: RunLock
    reporter: Reporter
    history: History | None
    """Of the earlier processes, when the run is resumed."""


def open_run(
    run_dir: Path,
    resume: bool,
    check: Callable[[History], None],
    listen: str | None = None,
    config: str | None = None,
) -> Opened:
    """Claim the directory and open the journal; ``check`` raises when its history cannot be gone on with.

    ``config``: the text of config.toml, which is there, whole, before a journal is: whoever is killed can be resumed.

    Raises RunError for a directory that holds a run already, or none to resume, or that another process has; UserError
    when the run's agent could not ``listen`` there.
    """
    place = _named_in_text(run_dir)
    check_listen(run_dir, listen)
    if run_dir.exists() and not run_dir.is_dir():
        raise WrongRun(f"{run_dir}: is a file; give a run directory, or the name of one to be made")
    has_run = (run_dir / "journal.db").exists()
    if has_run and not resume:
        raise WrongRun(f"{run_dir} already holds a run: resume it, or choose another directory")
    if resume and not has_run:
        raise WrongRun(f"{run_dir} holds no run to resume: there is no journal.db")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongRun(f"{run_dir}: cannot be made: {error.strerror}") from None
    lock = claim(place)
    try:
        if not resume and (run_dir / "journal.db").exists():  # another run began and ended while this one waited
            raise WrongRun(f"{run_dir} already holds a run: resume it, or choose another directory")
        aside = set_damaged_aside(place)
        history = read_history(run_dir) if resume else None
        if history is not None and not history.last_seq and not any((place / "checkpoints").glob("step-*")):
            history = None  # the earlier process went away before its first word: nothing was begun
        if history is not None:
            check(history)
        if config is not None:
            _write_config(place, config)
        reporter = Reporter(place, lock=lock)
        if aside is not None:
            reporter.report(_commands_lost(aside), history.attempt if history is not None else 0)
        return Opened(place, lock, reporter, history)
    except BaseException:
        lock.close()
        raise


def _write_config(run_dir: Path, text: str) -> None:
    """The whole file or, after a crash in the middle, the one before it. Raises RunError."""
    temporary = run_dir / ".config.toml.new"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, run_dir / "config.toml")
    except OSError as error:
        raise RunError(f"{run_dir}: config.toml cannot be written: {error.strerror}") from None


def _named_in_text(run_dir: Path) -> Path:
    """``run_dir`` from the root on. Raises WrongRun for a name that no record and no message could hold."""
    try:
        place = run_dir.absolute()
        str(place).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(run_dir).decode(errors="backslashreplace")
        raise WrongRun(f"{shown}: its path is not UTF-8, which every record and message is; choose another") from None
    return place


def read_history(run_dir: Path) -> History:
    """Read the whole journal once. Raises JournalError when it cannot be read."""
    history = History()
    alerts: dict[str, str] = {}
    told: dict[str, AcceptedCommand] = {}  # commands.db may have been removed or set aside
    reader = JournalReader(run_dir)
    after = 0
    while rows := reader.rows(after_seq=after, limit=_PAGE):
        for row in rows:
            after = history.last_seq = row.seq
            history.attempt = max(history.attempt, row.attempt)
            match row.record:
                case StepRecord(step=step) | PredictedStretch(step=step):
                    history.step = step
                    history.backward_passes = row.record.backward_passes
                case AttemptStarted(step=step, attempt=attempt, checkpoint=checkpoint):
                    history.step = step
                    if checkpoint is not None:
                        history.began[attempt] = attempt_of(checkpoint), step
                        history.saved_at.setdefault(checkpoint, row.seq)
                case RunStarted(plain=plain, baseline=baseline):
                    history.own_loop, history.world_size = row.record.own_loop, row.record.world_size
                    history.plain = history.plain or plain
                    history.baseline = baseline or history.baseline
                case AlertRaised(alert_id=alert_id, rule=rule):
                    alerts[alert_id] = rule
                case AlertResolved(alert_id=alert_id):
                    alerts.pop(alert_id, None)
                case CheckpointSaved(name=name):
                    history.saved_at.pop(name, None)
                    history.saved_at[name] = row.seq  # the newest one is the last
                case CommandChanged(command_id=command_id, state=state, state_rev=state_rev):
                    history.states[command_id] = state
                    history.state_rev = max(history.state_rev, state_rev)
                    if state is CommandState.ACCEPTED:
                        told[command_id] = _as_accepted(row.record, row.time)
                    elif state is CommandState.APPLIED:
                        history.applied_at[command_id] = row.seq
                case _:
                    pass
    history.open_alerts = tuple(alerts.items())
    kept = {command.request.command_id: command for _, command in accepted(run_dir)}
    history.accepted = tuple((told | kept).values())  # in the order in which they were accepted
    return history


def _as_accepted(change: CommandChanged, at: float) -> AcceptedCommand:
    """As commands.db had it, but for its step and its time to live, which the journal does not say."""
    request = CommandRequest(change.command_id, change.command, reason=change.reason, on_behalf_of=change.on_behalf_of)
    return AcceptedCommand(request, change.actor, at)


def _commands_lost(aside: Path) -> AlertRaised:
    what = f"commands.db was damaged and set aside as {aside.name}; what was accepted is in the journal"
    return AlertRaised(0, "journal-commands", "journal", Severity.CRITICAL, "journal", None, None, what)


def attempt_of(name: str) -> int:
    """The attempt that wrote the checkpoint called ``name``."""
    found = re.fullmatch(r"step-\d+-a(\d+)", name)
    return int(found[1]) if found else 0


def unfinished_business(inbox: Inbox, history: History, checkpoint: str | None) -> None:
    """Bring the commands of earlier processes to their end: again for sticky ones, never for one-shots.

    ``checkpoint``: what the run goes on from; None: nothing that was saved. One of which the journal says nothing was
    saved last of all, for rows come in order and those before it were committed first: it holds all the journal has.
    """
    saved = 0 if checkpoint is None else history.saved_at.get(checkpoint, history.last_seq)
    undone: list[AcceptedCommand] = []
    waiting: list[AcceptedCommand] = []
    pause = _last_pause(history)
    for command in history.accepted:
        state = history.states.get(command.request.command_id, CommandState.ACCEPTED)
        applied_later = history.applied_at.get(command.request.command_id, -1) > saved
        if isinstance(command.request.command, (Pause, Resume)):
            applied_later = command is pause
        sticky = isinstance(command.request.command, STICKY)
        if sticky and applied_later:
            undone.append(command)
        elif sticky and not state.final:
            waiting.append(command)
        elif isinstance(command.request.command, ApplyRemedy) and applied_later and state is CommandState.APPLIED:
            detail = (
                "applied after the checkpoint that the run goes on from: its effect is lost; apply it again if wanted"
            )
            inbox.end(command, CommandState.UNDONE_BY_RESTART, detail=detail)
        elif not state.final:
            detail = "the trainer restarted before it was applied; one-shots are not repeated"
            inbox.end(command, CommandState.UNDONE_BY_RESTART, detail=detail)
    undone.sort(key=lambda command: history.applied_at[command.request.command_id])
    inbox.put(map(_once_more, undone), again=True)
    inbox.put(map(_after_all, waiting))


def _last_pause(history: History) -> AcceptedCommand | None:
    """The pause that held when the earlier process went away. No checkpoint holds it, and a stop ended it."""
    applied = [
        (history.applied_at[command.request.command_id], command)
        for command in history.accepted
        if isinstance(command.request.command, (Pause, Resume, Stop))
        and command.request.command_id in history.applied_at
    ]
    _, last = max(applied, key=lambda pair: pair[0], default=(0, None))
    return last if last is not None and isinstance(last.request.command, Pause) else None


def _once_more(command: AcceptedCommand) -> AcceptedCommand:
    """What was applied once is applied again at the first boundary, however old it is by now."""
    return msgspec.structs.replace(
        command, request=msgspec.structs.replace(command.request, expect_state_rev=None, at_step=None)
    )


def _after_all(command: AcceptedCommand) -> AcceptedCommand:
    """What was never applied keeps its step and its time to live; state_rev has moved by what is applied again."""
    return msgspec.structs.replace(command, request=msgspec.structs.replace(command.request, expect_state_rev=None))
