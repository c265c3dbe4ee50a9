"""Where commands arrive: checks, idempotence, confirmation, the durable decision. Opens no socket; the agent's only.

Send -> bad schema, unknown setting, NaN: REJECTED(schema)     no trainer: REJECTED(run)     too many: REJECTED(rate)
     -> same id, same body: its present state                  same id, other body: REJECTED(conflict)
     -> stale expect_state_rev: REJECTED(conflict)             dangerous: RECEIVED until its Confirm
     -> committed to commands.db: ACCEPTED
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from trainer_core.spec.checks import problem_with
from trainer_core.spec.commands import (
    UNCONFIRMED,
    AcceptedCommand,
    CommandRequest,
    CommandState,
    Refusal,
    SetLearningRate,
    danger,
    kind_of,
)
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry.commands_db import CommandsWriter, Decided
from trainer_core.telemetry.wire import CommandStatus

_RATE, _BURST = 10.0, 40.0
_MOST_PENDING = 100
_CONFIRM_S = 120.0
_GAP_S, _SETTLE_S = 0.5, 1.0
"""Seconds without a look that are more than a busy moment; and until what waited below has come up."""


class Desk:
    """One run's commands. ``trainer_alive``, the clock and the run's present learning rate are passed in."""

    def __init__(
        self,
        run_dir: Path,
        trainer_alive: Callable[[], bool],
        clock: Callable[[], float],
        learning_rate: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._db = CommandsWriter(run_dir)
        self._trainer_alive, self._clock, self._learning_rate = trainer_alive, clock, learning_rate
        self._waiting: dict[str, tuple[AcceptedCommand, str]] = {}
        """Dangerous commands without their confirmation, and why; not durable, forgotten after two minutes."""
        self._known: dict[str, CommandChanged] = {}
        self._tokens: dict[str, tuple[float, float]] = {}
        self._quiet_at: float | None = None
        """When no command waited to be read; one that is read now may have been on its way since then."""
        self._looked_at = self._settled_at = clock()
        self.state_rev = 0
        self.run_ended: str | None = None
        """Why no command is taken any more, when the run has said how it ended."""

    def looked(self, nothing_waits: bool) -> None:
        """The commands socket was looked at. After a time in which it was not (this process was stopped, the machine
        slept), what comes in the next moment counts as sent before it: a command expires early rather than late.
        """
        now = self._clock()
        if abs(now - self._looked_at) > _GAP_S:
            self._settled_at = now + _SETTLE_S
        self._looked_at = now
        if nothing_waits and now >= self._settled_at:
            self._quiet_at = now

    def heard(self, change: CommandChanged) -> None:
        """The journal says where a command stands."""
        self._known[change.command_id] = change
        self.state_rev = max(self.state_rev, change.state_rev)

    def send(self, request: CommandRequest, actor: str) -> CommandStatus:
        """Take a command as far as it goes without confirmation."""
        earlier = self._earlier(request)
        if earlier is not None:
            return earlier
        received_at = self._clock() if self._quiet_at is None else min(self._quiet_at, self._clock())
        command = AcceptedCommand(request, actor, received_at)
        refusal, detail = self._refusal(command)
        if refusal is not None:
            if refusal is not Refusal.RATE:
                self._db.add(command, CommandState.REJECTED, refusal, detail)
            return _status(command, CommandState.REJECTED, refusal, detail, self.state_rev)
        rate = self._learning_rate() if isinstance(request.command, SetLearningRate) else None
        if (why := danger(request.command, rate)) is not None:
            self._forget_old()
            self._waiting[request.command_id] = command, why
            return self._unconfirmed(command, why)
        return self._accept(command)

    def confirm(self, command_id: str, actor: str) -> CommandStatus:
        """The second message of a dangerous command, from the same actor."""
        self._forget_old()
        command, _ = self._waiting.get(command_id, (None, ""))
        if command is None or command.actor != actor:
            return self.status(command_id)
        refusal, detail = self._refusal(command, counted=False)
        del self._waiting[command_id]
        if refusal is not None:
            self._db.add(command, CommandState.REJECTED, refusal, detail)
            return _status(command, CommandState.REJECTED, refusal, detail, self.state_rev)
        return self._accept(command)

    def status(self, command_id: str) -> CommandStatus:
        """Where a command stands: the journal's word, else the decision, else waiting, else unknown."""
        if (known := self._known.get(command_id)) is not None:
            return status_of(known)
        if (decided := self._db.find(command_id)) is not None:
            return _status(decided.command, decided.state, decided.refusal, decided.detail, self.state_rev)
        if command_id in self._waiting:
            return self._unconfirmed(*self._waiting[command_id])
        return CommandStatus(command_id, detail="no such command here")

    def _unconfirmed(self, command: AcceptedCommand, why: str) -> CommandStatus:
        return _status(command, CommandState.RECEIVED, None, UNCONFIRMED + why, self.state_rev)

    def _accept(self, command: AcceptedCommand) -> CommandStatus:
        self._db.add(command, CommandState.ACCEPTED, None, "")
        return _status(command, CommandState.ACCEPTED, None, "", self.state_rev)

    def _earlier(self, request: CommandRequest) -> CommandStatus | None:
        """The answer to an id that was seen before."""
        decided: Decided | None = self._db.find(request.command_id)
        waiting, _ = self._waiting.get(request.command_id, (None, ""))
        earlier = decided.command if decided else waiting
        if earlier is None:
            return self._told_of(request)
        if msgspec.msgpack.encode(earlier.request) != msgspec.msgpack.encode(request):
            return self._used(request)
        return self.status(request.command_id)

    def _told_of(self, request: CommandRequest) -> CommandStatus | None:
        """As ``_earlier``, of an id that only the journal knows: commands.db was removed or set aside."""
        known = self._known.get(request.command_id)
        if known is None:
            return None
        return status_of(known) if known.command == request.command else self._used(request)

    def _used(self, request: CommandRequest) -> CommandStatus:
        return CommandStatus(
            request.command_id,
            kind_of(request.command),
            CommandState.REJECTED,
            refusal=Refusal.CONFLICT,
            detail=f"command id {request.command_id} was already used for another command",
            state_rev=self.state_rev,
        )

    def _refusal(self, command: AcceptedCommand, counted: bool = True) -> tuple[Refusal | None, str]:
        request = command.request
        if self.run_ended is not None or not self._trainer_alive():
            return Refusal.RUN, self.run_ended or "no trainer is running: the run takes no commands"
        if counted and not self._token(command.actor):
            return Refusal.RATE, f"more than {_RATE:g} commands a second from {command.actor}: wait a moment"
        if (problem := problem_with(request.command)) is not None:
            return Refusal.SCHEMA, problem
        if request.expect_state_rev is not None and request.expect_state_rev != self.state_rev:
            was = request.expect_state_rev
            return Refusal.CONFLICT, f"the run has moved on: state_rev is {self.state_rev}, {was} was expected"
        return None, ""

    def _token(self, actor: str) -> bool:
        """A token bucket per actor."""
        now = self._clock()
        tokens, then = self._tokens.get(actor, (_BURST, now))
        tokens = min(_BURST, tokens + max(0.0, now - then) * _RATE)  # a clock that is set back takes none away
        self._tokens[actor] = (max(0.0, tokens - 1.0), now) if tokens >= 1.0 else (tokens, now)
        return tokens >= 1.0

    def forget(self, actor: str) -> None:
        """An actor's key was revoked: what it has not confirmed is confirmed by nobody."""
        self._waiting = {id_: held for id_, held in self._waiting.items() if held[0].actor != actor}

    def _forget_old(self) -> None:
        horizon = self._clock() - _CONFIRM_S
        recent = [(k, c) for k, c in self._waiting.items() if c[0].received_at >= horizon]
        self._waiting = dict(recent[-_MOST_PENDING:])

    def close(self) -> None:
        self._db.close()


def status_of(change: CommandChanged) -> CommandStatus:
    """A journal row as an answer."""
    return CommandStatus(
        change.command_id,
        kind_of(change.command),
        change.state,
        change.step,
        change.phase,
        change.before,
        change.after,
        change.refusal,
        change.detail,
        change.actor,
        change.state_rev,
    )


def _status(
    command: AcceptedCommand, state: CommandState, refusal: Refusal | None, detail: str, state_rev: int
) -> CommandStatus:
    request = command.request
    return CommandStatus(
        request.command_id,
        kind_of(request.command),
        state,
        refusal=refusal,
        detail=detail,
        actor=command.actor,
        state_rev=state_rev,
    )


__all__ = ["Desk", "status_of"]
