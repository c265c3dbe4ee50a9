"""The life of commands over crashes and resumes equals a small model: the real desk, commands.db, journal, inbox,
session and checkpoints on one side, some lists on the other.

    HYBRID_MODEL_EXAMPLES=500 pytest tests/engine/test_command_model.py       make soak does

A crash loses every row that was not committed, as kill -9 does; a checkpoint commits them first, as the trainer does.
The run stays in WARMUP: when phases change is another test's claim.
"""

import copy
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.engine.rig import Rig, batch_of
from trainer_core.engine.knobs import Knob
from trainer_core.resuming import read_history, unfinished_business
from trainer_core.spec import commands as c
from trainer_core.spec.commands import Command, CommandRequest, CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, Record
from trainer_core.telemetry.commands_db import CommandsReader
from trainer_core.telemetry.desk import Desk
from trainer_core.telemetry.journal import JournalReader, JournalWriter

FEW = 8
EXAMPLES = int(os.environ.get("HYBRID_MODEL_EXAMPLES", FEW))
STEPS_EACH = 30
BASE_RATE = 3e-3

COMMANDS: list[Command] = [
    c.SetThreshold("confidence_threshold", 0.3),
    c.SetThreshold("confidence_threshold", 0.6),
    c.SetThreshold("gradient_norm_high", 1e6),  # refused: above gradient_norm_extreme_high
    c.SetPhaseLength(Phase.FULL, 7),
    c.SetGradientClip(0.5),
    c.SetWeightDecay(0.2),
    c.SetLearningRate(1e-3),
    c.ScaleLearningRate(0.5),
    c.LockPrediction(True),
    c.LockPrediction(False),
    c.SetKnob("dropout", 0.3),
    c.SetKnob("dropout", 0.9),  # refused: above its bound
    c.Pause(),
    c.Resume(),
    c.Annotate("a note"),
    c.SaveCheckpoint(),
    c.Rollback(),
    c.ForcePhase(Phase.WARMUP),
    c.ApplyRemedy("lower_learning_rate"),
    c.AcknowledgeAlert("alert-0-1"),  # refused: there is no such alert
    c.SilenceAlert("plateau", 5),
    c.Stop(),
]
REFUSED = (COMMANDS[2], COMMANDS[11], COMMANDS[19])
START = {"confidence": 0.0, "full": 4.0, "clip": 0.0, "decay": 0.01, "rate": BASE_RATE, "lock": 0.0, "dropout": 0.1}


class StillPaused(Exception):
    """The session would wait; the test goes on."""


@dataclass
class Given:
    """One command as the model knows it."""

    name: str
    command: Command
    at: int | None
    rev: int | None
    deadline: float
    again: bool = False
    early: bool = False


@dataclass
class Model:
    """What should be. ``log``: (id, state) of every transition; the first ``durable`` of them outlive a crash."""

    values: dict[str, float] = field(default_factory=lambda: dict(START))
    step: int = 0
    rev: int = 0
    attempt: int = 0
    paused: bool = False
    ended: bool = False
    waiting: list[Given] = field(default_factory=list)
    accepted: list[Given] = field(default_factory=list)
    fetched: int = 0
    log: list[tuple[str, CommandState, int]] = field(default_factory=list)
    durable: int = 0
    checkpoints: dict[tuple[int, int], tuple[dict[str, float], int]] = field(default_factory=dict)
    """(attempt, step) -> values and length of the log when it was saved."""

    def say(self, given: Given, state: CommandState) -> None:
        self.log.append((given.name, state, self.rev))

    def save(self) -> None:
        self.durable = len(self.log)
        self.checkpoints[self.attempt, self.step] = dict(self.values), len(self.log)

    def boundary(self, now: float) -> None:
        self.waiting += self.accepted[self.fetched :]
        self.fetched = len(self.accepted)
        more = not self.ended
        while more:
            more = False
            for given in list(self.waiting):
                if given in self.waiting:
                    if self.outdone(given):
                        more = True
                    else:
                        self.consider(given, now)

    def outdone(self, given: Given) -> bool:
        for newer in self.waiting[self.waiting.index(given) + 1 :]:
            if newer.at is not None and self.step + 1 < newer.at:
                continue
            if thing(newer) is not None and thing(newer) == thing(given):
                return newer.rev is None
            if slotless(newer.command):
                return False
        return False

    def consider(self, given: Given, now: float) -> None:
        if now > given.deadline and not given.again:
            self.finish(given, CommandState.EXPIRED)
        elif given.at is not None and self.step + 1 < given.at:
            given.early = True
        elif self.late(given) or given.rev not in (None, self.rev):
            self.finish(given, CommandState.REJECTED)
        else:
            self.say(given, CommandState.APPLYING)
            self.apply(given)

    def late(self, given: Given) -> bool:
        return given.at is not None and self.step + 1 > given.at and not given.early

    def apply(self, given: Given) -> None:
        if given.command in REFUSED:
            self.finish(given, CommandState.REJECTED)
            return
        match given.command:
            case c.SaveCheckpoint():
                self.save()
            case c.Rollback():
                self.step = max(self.checkpoints)[1]
                self.attempt += 1
            case c.Stop():
                self.save()
                self.ended, self.paused = True, False
            case c.Pause() | c.Resume():
                self.paused = isinstance(given.command, c.Pause)
            case _:
                self.values |= effect(given.command, self.values)
        self.rev += 1
        stop = isinstance(given.command, c.Stop)
        place = self.waiting.index(given)
        for other in [w for w in self.waiting if w is not given]:
            earlier = self.waiting.index(other) < place and thing(given) is not None and thing(other) == thing(given)
            if stop or earlier:
                place -= self.waiting.index(other) < place
                self.finish(other, CommandState.SUPERSEDED)
        self.finish(given, CommandState.APPLIED)

    def finish(self, given: Given, state: CommandState) -> None:
        self.say(given, state)
        self.waiting.remove(given)

    def crash_and_resume(self) -> None:
        self.log = self.log[: self.durable]
        self.attempt += 1
        newest = max(self.checkpoints)
        values, saved = self.checkpoints[newest]
        self.step, self.values, self.paused, self.ended = newest[1], dict(values), False, False
        self.rev = max([rev for _, _, rev in self.log], default=0)
        states = {name: state for name, state, _ in self.log}
        applied = {name: i for i, (name, state, _) in enumerate(self.log) if state is CommandState.APPLIED}
        pausing = [g for g in self.accepted if isinstance(g.command, (c.Pause, c.Resume, c.Stop)) and g.name in applied]
        holds = max(pausing, key=lambda g: applied[g.name], default=None)
        again, waiting = [], []
        for given in map(copy.copy, self.accepted):
            state = states.get(given.name)
            later = applied.get(given.name, -1) >= saved
            if isinstance(given.command, (c.Pause, c.Resume)):
                later = holds is not None and holds.name == given.name and isinstance(given.command, c.Pause)
            given.rev, given.early = None, False
            if isinstance(given.command, c.STICKY):
                if later:
                    given.at, given.again = None, True
                    again.append(given)
                elif state is None or not state.final:
                    waiting.append(given)
            elif (
                state is None
                or not state.final
                or (isinstance(given.command, c.ApplyRemedy) and later and state is CommandState.APPLIED)
            ):
                self.say(given, CommandState.UNDONE_BY_RESTART)
        again.sort(key=lambda g: applied[g.name])
        self.waiting, self.fetched = again + waiting, len(self.accepted)


def thing(given: Given) -> str | None:
    """What a command sets; None: nothing that another could set instead."""
    if given.again or slotless(given.command):
        return None
    if isinstance(given.command, (c.Pause, c.Resume)):
        return "pause"
    named = getattr(given.command, "name", "")
    return f"{type(given.command).__name__} {named}"


def slotless(command: Command) -> bool:
    """One-shots and relative changes."""
    return not isinstance(command, c.STICKY) or isinstance(command, c.ScaleLearningRate)


def effect(command: Command, values: dict[str, float]) -> dict[str, float]:
    """What a command changes."""
    match command:
        case c.SetThreshold(value=value):
            return {"confidence": value}
        case c.SetPhaseLength(steps=steps):
            return {"full": steps}
        case c.SetGradientClip(max_norm=value):
            return {"clip": value}
        case c.SetWeightDecay(value=value):
            return {"decay": value}
        case c.SetLearningRate(value=value):
            return {"rate": value}
        case c.ScaleLearningRate() | c.ApplyRemedy():
            return {"rate": values["rate"] * 0.5}
        case c.LockPrediction(locked=locked):
            return {"lock": float(locked)}
        case c.SetKnob(value=value):
            return {"dropout": value}
        case _:
            return {}


class Process:
    """One trainer process on a run directory: a session, and a reporter that commits when told to."""

    def __init__(self, run_dir: Path, now: float, resumed: bool) -> None:
        self.run_dir = run_dir
        history = read_history(run_dir) if resumed else None
        self.writer, self.database = JournalWriter(run_dir), CommandsReader(run_dir)
        self.committed = 0
        self.seen = self.database.last_id()
        self.dropout = START["dropout"]
        self.rig = Rig(run_dir / "checkpoints", steps=10**6, warmup_steps=10**6, flush=self.commit, wait=_paused)
        self.rig.now = now
        self.session, self.engine = self.rig.session, self.rig.engine
        self.session.knobs.declare(Knob("dropout", lambda: self.dropout, self._set_dropout, 0.0, 0.5), 0)
        if history is not None:
            self.engine.state_rev = history.state_rev
            self.session.last_attempt = self.engine.attempt = history.attempt
            entry = self.session.resume(history.attempt, history.step, "resumed")
            unfinished_business(self.session.inbox, history, entry.name)
        else:
            self.session.save_checkpoint("start")

    def _set_dropout(self, value: float) -> None:
        self.dropout = value

    def commit(self) -> None:
        """What the reporter's thread does every 50 ms."""
        rows: list[tuple[Record, int]] = self.rig.records[self.committed :]
        if rows:
            self.writer.append([(time.time(), attempt, record) for record, attempt in rows])
        self.committed = len(self.rig.records)

    def boundary(self, now: float) -> None:
        """Fetch, and let the session do what is due."""
        self.rig.now = now
        for decided in self.database.decided(self.seen):
            self.seen = decided.id
            if decided.state is CommandState.ACCEPTED:
                self.rig.queue.append(decided.command)
        try:
            self.session.commands()
        except StillPaused:
            return

    def step(self, now: float) -> None:
        self.engine.step(batch_of(self.engine.batches))
        self.boundary(now)

    def die(self) -> None:
        self.writer.close()
        self.database.close()

    def values(self) -> dict[str, float]:
        e = self.engine
        return {
            "confidence": e.config.hybrid_trainer_config.confidence_threshold,
            "full": e.config.hybrid_trainer_config.full_steps,
            "clip": e.config.optimizer.gradient_clip_norm,
            "decay": self.rig.optimizer.param_groups[0]["weight_decay"],
            "rate": BASE_RATE * e.schedule.scale,
            "lock": float(e.locked),
            "dropout": self.dropout,
        }


def _paused(rig: Rig) -> None:
    raise StillPaused


class CommandLife(RuleBasedStateMachine):
    """What operators, the clock, the disk and kill -9 may do to a run."""

    def __init__(self) -> None:
        super().__init__()
        self.run_dir = Path(tempfile.mkdtemp(prefix="command-life-"))
        self.now = time.time()
        self.desk = Desk(self.run_dir, lambda: True, lambda: self.now, lambda: BASE_RATE)
        self.model = Model()
        self.process = Process(self.run_dir, self.now, resumed=False)
        self.model.save()
        self.requests: dict[str, CommandRequest] = {}

    @rule(
        command=st.sampled_from([*COMMANDS, *[c.ScaleLearningRate(0.5)] * 4]),
        ahead=st.sampled_from([None, None, None, 0, 1, 3, -2]),
        ttl=st.sampled_from([3600.0, 3600.0, 20.0]),
        expects=st.sampled_from([None, None, None, 0, -1]),
    )
    def send(self, command: Command, ahead: int | None, ttl: float, expects: int | None) -> None:
        at = None if ahead is None else max(0, self.model.step + 1 + ahead)
        rev = None if expects is None else max(0, self.model.rev + expects)
        name = f"command-{len(self.requests):04}"
        request = CommandRequest(name, command, rev, at, ttl)
        self.desk.state_rev = self.model.rev if rev is None else rev  # a heartbeat late: the trainer decides
        status = self.desk.send(request, "ann")
        if status.state is CommandState.RECEIVED:
            status = self.desk.confirm(name, "ann")
        assert status.state is CommandState.ACCEPTED, status
        self.requests[name] = request
        self.model.accepted.append(Given(name, command, at, rev, self.now + ttl))

    @precondition(lambda self: bool(self.requests))
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        before = len(CommandsReader(self.run_dir).decided())
        assert self.desk.send(self.requests[name], "ann").state is CommandState.ACCEPTED
        other = CommandRequest(name, c.Annotate("another"))
        assert self.desk.send(other, "ann").state is CommandState.REJECTED
        assert len(CommandsReader(self.run_dir).decided()) == before

    @precondition(lambda self: not self.model.ended)
    @rule(count=st.integers(1, 3))
    def steps(self, count: int) -> None:
        for _ in range(count):
            if self.model.ended:
                return
            if self.model.paused:
                self.process.boundary(self.now)
            else:
                self.process.step(self.now)
                self.model.step += 1
            self.model.boundary(self.now)

    @rule(seconds=st.sampled_from([1.0, 15.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.model.ended)
    @rule()
    def a_checkpoint_is_due(self) -> None:
        self.process.session.save_checkpoint("every so often")
        self.model.save()

    @rule()
    def rows_are_committed(self) -> None:
        self.process.commit()
        self.model.durable = len(self.model.log)

    @rule(committed=st.booleans())
    def crash_and_resume(self, committed: bool) -> None:
        if committed:
            self.rows_are_committed()
        self.process.die()
        self.process = Process(self.run_dir, self.now, resumed=True)
        self.model.crash_and_resume()

    @invariant()
    def what_holds_is_what_the_model_says(self) -> None:
        engine = self.process.engine
        assert self.process.values() == pytest.approx(self.model.values)
        assert (engine.step_count, engine.state_rev) == (self.model.step, self.model.rev)
        assert (self.process.session.paused, self.process.session.ended is not None) == (
            self.model.paused,
            self.model.ended,
        )

    @invariant()
    def the_journal_tells_the_same_lives(self) -> None:
        told = self.told()
        assert told == [(name, state) for name, state, _ in self.model.log]
        final = [name for name, state in told if state in (CommandState.APPLIED, CommandState.SUPERSEDED)]
        once = [n for n in final if not isinstance(self.requests[n].command, c.STICKY)]
        assert len(once) == len(set(once)), "a one-shot happens once at most"

    def told(self) -> list[tuple[str, CommandState]]:
        reader = JournalReader(self.run_dir)
        rows = [row.record for row in reader.rows(limit=10**6)]
        reader.close()
        rows += [record for record, _ in self.process.rig.records[self.process.committed :]]
        return [(r.command_id, r.state) for r in rows if isinstance(r, CommandChanged)]

    def teardown(self) -> None:
        self.process.die()
        self.desk.close()
        shutil.rmtree(self.run_dir)


def test_the_life_of_commands_over_crashes_and_resumes_equals_a_model() -> None:
    bounded: dict[str, Any] = {"max_examples": EXAMPLES, "stateful_step_count": STEPS_EACH, "deadline": None}
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    if EXAMPLES <= FEW:  # the first failure is enough to go on with
        bounded["phases"] = [HypothesisPhase.generate]
    run_state_machine_as_test(
        CommandLife, settings=settings(derandomize=True, database=None, suppress_health_check=quiet, **bounded)
    )


def test_the_model_knows_every_kind_of_command() -> None:
    assert {type(command) for command in COMMANDS} == set(Command.__args__)
