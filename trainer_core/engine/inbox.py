"""Commands in, between steps: the one way anything outside touches the engine. Knows no database and no socket.

Every command ends in exactly one of APPLIED, REJECTED, FAILED, EXPIRED, SUPERSEDED, UNDONE_BY_RESTART, and every
transition is a record.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from trainer_core.engine.answers import BeforeAfter, Failed, Half, Refused
from trainer_core.spec.commands import (
    AcceptedCommand,
    Command,
    CommandRequest,
    CommandState,
    Pause,
    Refusal,
    Stop,
    kind_of,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, Record
from trainer_core.spec.slots import slot_of

SHORT_S = 2.0
"""Seconds. A checkpoint or a rollback that is shorter refuses nobody."""
_REMEMBERED = 8


class Commanded(Protocol):
    """What is steered: the engine, or the monitor of somebody else's loop."""

    step_count: int
    state_rev: int
    attempt: int

    @property
    def phase(self) -> Phase | None:
        """The phase of the coming step; None: the loop has no phases."""

    def record(self, record: Record) -> None:
        """Say something."""


class Inbox:
    """Holds accepted commands until their boundary. ``clock`` gives Unix seconds, for the time to live.

    ``apply(command, actor)`` carries a command out, raising Refused or Failed; it returns what was before and after.
    """

    def __init__(
        self,
        run: Commanded,
        apply: Callable[[Command, str], BeforeAfter],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run, self._carry, self._clock = run, apply, clock
        self._waiting: list[AcceptedCommand] = []
        self._again: set[str] = set()
        """Commands that an earlier process applied: they supersede nothing and are not superseded."""
        self._busy: list[tuple[float, float, str]] = []
        """(from, to, what was going on): the newest stretches in which only pause and stop were taken."""
        self._early: set[str] = set()
        """Commands that were here before their step: a prediction that jumps over it does not make them late."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, commands: Iterable[AcceptedCommand], *, again: bool = False) -> None:
        """Queue commands in the order they were accepted; ``again``: an earlier process applied them already."""
        for command in commands:
            if again:
                self._again.add(command.request.command_id)
            elif (doing := self._busy_with(command)) is not None:
                detail = f"came while {doing}: only pause and stop are taken then; give it again"
                self.end(command, CommandState.REJECTED, refusal=Refusal.PRECONDITION, detail=detail)
                continue
            self._waiting.append(command)

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Around what must not be steered meanwhile. Commands that were received in it are refused when they come,
        except pause and stop; unless it was over before anybody could have meant anything by it (``SHORT_S``)."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            if ended - began >= SHORT_S:
                self._busy = [*self._busy, (began, ended, f"{doing} ({ended - began:.1f} s)")][-_REMEMBERED:]

    def _busy_with(self, command: AcceptedCommand) -> str | None:
        if isinstance(command.request.command, (Pause, Stop)):
            return None
        at = command.received_at
        return next((doing for began, ended, doing in self._busy if began <= at <= ended), None)

    def apply_due(self) -> None:
        """Apply what is due at this boundary, in order.

        A setting that a newer one for the same thing is about to supersede is held back: where the newer one is
        refused, it has its turn after all.
        """
        held = True
        while held:
            held = False
            for command in list(self._waiting):
                if command not in self._waiting:
                    continue
                if self._is_outdone(command):
                    held = True
                elif self._due(command):
                    self._waiting.remove(command)

    def _is_outdone(self, command: AcceptedCommand) -> bool:
        """Whether a newer command for the same thing is due now.

        A one-shot or a relative change between the two was given under the older one, which then has its turn. A
        newer one that was given for a state of the run (``expect_state_rev``) comes after what changes that state.
        """
        for newer in self._waiting[self._waiting.index(command) + 1 :]:
            if not self._reached(newer):
                continue
            if self._replaces(newer, command):
                return newer.request.expect_state_rev is None
            if slot_of(newer.request.command) is None:
                return False
        return False

    def _replaces(self, newer: AcceptedCommand, older: AcceptedCommand) -> bool:
        slot = slot_of(newer.request.command)
        anew = self._again.isdisjoint({newer.request.command_id, older.request.command_id})
        return anew and slot is not None and slot == slot_of(older.request.command)

    def _reached(self, command: AcceptedCommand) -> bool:
        at = command.request.at_step
        return at is None or self._run.step_count + 1 >= at

    def close(self, because: str) -> None:
        """The run is over: nothing that still waits will be applied."""
        for command in self._waiting:
            self.end(command, CommandState.REJECTED, refusal=Refusal.RUN, detail=because)
        self._waiting.clear()

    def _due(self, command: AcceptedCommand) -> bool:
        """Bring one command to its end; False when its time has not come."""
        request, engine = command.request, self._run
        if self._clock() > command.received_at + request.ttl_s and request.command_id not in self._again:
            self.end(command, CommandState.EXPIRED, detail=f"not applied within {request.ttl_s:g} s")
            return True
        if request.at_step is not None and engine.step_count + 1 < request.at_step:
            self._early.add(request.command_id)
            return False
        late = request.at_step is not None and engine.step_count + 1 > request.at_step
        if late and request.command_id not in self._early:
            detail = f"step {request.at_step} has passed; the run is at step {engine.step_count}"
            self.end(command, CommandState.REJECTED, refusal=Refusal.PRECONDITION, detail=detail)
            return True
        if request.expect_state_rev is not None and request.expect_state_rev != engine.state_rev:
            detail = f"the run has moved on: state_rev is {engine.state_rev}, {request.expect_state_rev} was expected"
            self.end(command, CommandState.REJECTED, refusal=Refusal.CONFLICT, detail=detail)
            return True
        self._early.discard(request.command_id)
        self._apply(command)
        return True

    def carry_out(self, command: Command, reason: str, actor: str = "trainer", command_id: str | None = None) -> bool:
        """Apply a command of the trainer's own now, as the journal shows an operator's; whether it was applied."""
        command_id = command_id or f"trainer-{self._run.attempt}-{kind_of(command)}"
        request = CommandRequest(command_id, command, reason=reason[:2000])
        return self._apply(AcceptedCommand(request, actor, self._clock()))

    def carry_out_together(
        self,
        commands: Mapping[str, Command],
        carry: Callable[[Sequence[Command]], Iterable[tuple[Command, BeforeAfter]]],
        reason: str,
        actor: str,
    ) -> bool:
        """Apply commands of the trainer's own, by id, all or none of them; whether they were applied.

        Each has its life in the record; none is said to be applied before all are. ``carry`` raises Half.
        """
        orders = [
            AcceptedCommand(CommandRequest(command_id, command, reason=reason[:2000]), actor, self._clock())
            for command_id, command in commands.items()
        ]
        for order in orders:
            self.end(order, CommandState.APPLYING)
        try:
            done = list(carry(tuple(commands.values())))
        except Half as half:
            for order in orders:
                failed = order.request.command is half.command and not half.refused
                state = CommandState.FAILED if failed else CommandState.REJECTED
                self.end(order, state, refusal=None if failed else Refusal.PRECONDITION, detail=str(half))
            return False
        for command, (before, after) in done:
            order = next(order for order in orders if order.request.command is command)
            self._run.state_rev += 1
            self.end(order, CommandState.APPLIED, before=before, after=after)
        return True

    def _apply(self, command: AcceptedCommand) -> bool:
        self.end(command, CommandState.APPLYING)
        try:
            before, after = self._carry(command.request.command, command.by)
        except Refused as refused:
            self.end(command, CommandState.REJECTED, refusal=Refusal.PRECONDITION, detail=str(refused))
            return False
        except Failed as failed:
            self.end(command, CommandState.FAILED, detail=str(failed))
            return False
        except OSError as error:
            self.end(command, CommandState.FAILED, detail=f"{type(error).__name__}: {error}")
            return False
        except BaseException as error:  # the run ends of it, and the command does not stay under way for ever
            self.end(command, CommandState.FAILED, detail=f"{type(error).__name__}: {error}")
            raise
        self._run.state_rev += 1
        self._supersede(command)
        self.end(command, CommandState.APPLIED, before=before, after=after)
        return True

    def _supersede(self, command: AcceptedCommand) -> None:
        """A stop ends all that waits; a setting that holds now ends what was accepted before it for the same thing,
        for this boundary or a later one."""
        ended: list[AcceptedCommand] = []
        if isinstance(command.request.command, Stop):
            ended = [waiting for waiting in self._waiting if waiting is not command]
        elif command in self._waiting:  # not one of the trainer's own
            earlier = self._waiting[: self._waiting.index(command)]
            ended = [waiting for waiting in earlier if self._replaces(command, waiting)]
        for waiting in ended:
            self._waiting.remove(waiting)
            self.end(waiting, CommandState.SUPERSEDED, detail=f"by {command.request.command_id}")

    def end(
        self,
        command: AcceptedCommand,
        state: CommandState,
        *,
        before: str | None = None,
        after: str | None = None,
        refusal: Refusal | None = None,
        detail: str = "",
    ) -> None:
        """Record that a command is now in ``state``."""
        engine = self._run
        engine.record(
            CommandChanged(
                step=engine.step_count,
                phase=engine.phase,
                command_id=command.request.command_id,
                command=command.request.command,
                state=state,
                actor=command.actor,
                state_rev=engine.state_rev,
                before=before,
                after=after,
                refusal=refusal,
                detail=detail,
                reason=command.request.reason,
                on_behalf_of=command.request.on_behalf_of,
            )
        )
