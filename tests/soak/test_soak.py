"""The long test: one run, killed again and again at random moments while it is watched, steered and shouted at.

    make soak            SOAK_MINUTES=5 (at most 18), SOAK_SEED=0

Prints what it survived. Not part of ``make test``.
"""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import zmq

from tests.conftest import end_agents
from tests.telemetry.test_repair import Noisy
from tests.telemetry.trainers import TrainerProcess
from tests.telemetry.wires import dealer, stranger
from trainer_core.spec.commands import Command, CommandRequest, CommandState, Refusal, SetThreshold
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import CommandChanged, Row
from trainer_core.telemetry import rundir, wire
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import CommandsReader
from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.journal import JournalReader

MINUTES = min(18.0, float(os.environ.get("SOAK_MINUTES", "5")))
SEED = int(os.environ.get("SOAK_SEED", "0"))
SEGMENT_ROWS, KEPT_ROWS = 1500, 300
_NOT_TAKEN = (Refusal.CONFLICT, Refusal.RATE, Refusal.RUN)


@dataclass
class Counts:
    """What happened."""

    trainers_killed: int = 0
    agents_killed: int = 0
    sealers_killed: int = 0
    stops: int = 0
    rows_acknowledged: int = 0
    rows_lost: int = 0
    rows_sealed: int = 0
    frames_fuzzed: int = 0
    messages_dropped_doubled_or_late: int = 0
    commands_issued: int = 0
    commands: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [f"{name.replace('_', ' '):<36}{getattr(self, name)}" for name in self.__dataclass_fields__]
        states = ", ".join(f"{state} {count}" for state, count in sorted(self.commands.items()))
        return "\n".join([*lines[:-1], f"{'commands and their states':<36}{states}"])


@dataclass
class Soak:
    """One run directory and everything that is done to it."""

    run_dir: Path
    chance: random.Random
    counts: Counts = field(default_factory=Counts)
    shown: list[Row] = field(default_factory=list)
    accepted: dict[str, Command] = field(default_factory=dict)
    """What stands under each id that was said to be accepted: the first body that arrived."""
    issued: dict[str, CommandRequest] = field(default_factory=dict)

    def life(self, follower: Noisy) -> None:
        """One trainer from start to kill -9."""
        with TrainerProcess(self.run_dir, segments=(SEGMENT_ROWS, KEPT_ROWS)) as trainer:
            trainer.run()
            ends = time.monotonic() + self.chance.uniform(0.05, 6.0)
            while time.monotonic() < ends:
                self.see(follower)
                act = self.chance.random()
                if act < 0.25:
                    self.fuzz()
                elif act < 0.6:
                    self.command()
                elif act < 0.64:
                    self.counts.agents_killed += self.kill("trainer_core.telemetry.agent")
                elif act < 0.72:
                    self.counts.sealers_killed += self.kill("trainer_core.telemetry.sealing")
                elif act < 0.76:
                    self.stop(trainer.pid)
            trainer.kill()
            self.counts.trainers_killed += 1
        self.check()

    def see(self, follower: Noisy) -> None:
        for row in follower.poll(0.05):
            assert row.seq == (self.shown[-1].seq if self.shown else 0) + 1, "in order, without a hole"
            self.shown.append(row)

    def fuzz(self) -> None:
        """Frames that are no request, from keys that are known and one that is not."""
        valid = wire.pack(wire.AskRange(first=1, last=2**30))
        socket_name, key = self.chance.choice(
            [("questions", "viewer"), ("commands", "operator"), ("commands", "viewer"), ("news", "viewer")]
        )
        with (
            suppress(OSError, ValueError, KeyError, RunError, zmq.ZMQError),  # no agent at the moment
            dealer(self.run_dir, socket_name, stranger() if self.chance.random() < 0.2 else key) as socket,
        ):
            for _ in range(20):
                socket.send_multipart(self.garbage(valid), zmq.NOBLOCK)
                self.counts.frames_fuzzed += 1
            socket.poll(10)

    def garbage(self, valid: bytes) -> list[bytes]:
        kind = self.chance.randrange(4)
        if kind == 0:
            return [self.chance.randbytes(self.chance.randrange(200))]
        if kind == 1:
            return [valid[: self.chance.randrange(len(valid))]]
        if kind == 2:
            flipped = bytearray(valid)
            flipped[self.chance.randrange(len(flipped))] ^= 1 << self.chance.randrange(8)
            return [bytes(flipped)]
        return [self.chance.randbytes(8) for _ in range(self.chance.randrange(1, 6))] + [
            bytes(wire.MOST_REQUEST_BYTES + 1)
        ]

    def command(self) -> None:
        """A new command, or an old one again: as it was, or another one under its id."""
        again = self.chance.choice(list(self.issued.values())) if self.issued and self.chance.random() < 0.4 else None
        fresh = CommandRequest(
            f"soak-{len(self.issued):06}", SetThreshold("confidence_threshold", self.chance.random())
        )
        request = fresh if again is None else again
        if again is not None and self.chance.random() < 0.3:
            request = msgspec.structs.replace(request, command=SetThreshold("confidence_threshold", 0.123))
        else:
            self.issued[request.command_id] = request
        try:
            with Client(self.run_dir) as client:
                answer = client.send(request)
        except (RunError, zmq.ZMQError):
            return
        self.counts.commands_issued += 1
        stands = self.accepted.get(request.command_id)
        if stands is not None and stands != request.command:
            assert answer.state is None or answer.refusal in _NOT_TAKEN, "another body under an id is another command"
        elif answer.state is not None and answer.state not in (CommandState.REJECTED, CommandState.RECEIVED):
            self.accepted[request.command_id] = request.command

    def kill(self, module: str) -> int:
        """kill -9 of this run's processes of one kind; how many there were."""
        killed = 0
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if entry.name.isdigit() and module in words and str(self.run_dir) in words:
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed += 1
        return killed

    def stop(self, pid: int) -> None:
        """A trainer that stands still for a moment is not a dead one."""
        os.kill(pid, signal.SIGSTOP)
        self.counts.stops += 1
        time.sleep(0.2)
        assert rundir.status(self.run_dir).state == "working"
        os.kill(pid, signal.SIGCONT)

    def check(self) -> None:
        """What was shown is in the journal as it was shown, and the journal has no hole and no bad row."""
        reader = JournalReader(self.run_dir)
        raw = reader.raw_rows(0, 10**7)
        assert [row.seq for row in raw] == list(range(1, len(raw) + 1)) and all(row.intact for row in raw)
        assert not reader.damaged
        lost = len(self.shown) - len(raw)
        self.counts.rows_lost += max(0, lost)
        new = self.shown[self.counts.rows_acknowledged :]
        assert repr(reader.rows(self.counts.rows_acknowledged, max(1, len(new)))[: len(new)]) == repr(new)
        self.counts.rows_acknowledged = len(self.shown)
        self.counts.rows_sealed = sum(s.last - s.first + 1 for s in reader.sealed.all)
        reader.close()

    def settle(self) -> None:
        """The states of all commands, from the journal and from commands.db."""
        reader, database = JournalReader(self.run_dir), CommandsReader(self.run_dir)
        changes = [row.record for row in reader.events("command") if isinstance(row.record, CommandChanged)]
        stored = {decided.command.request.command_id: decided for decided in database.decided()}
        assert not database.unreadable and set(stored) <= set(self.issued), "no garbage became a command"
        assert set(self.accepted) <= set(stored), "what was said to be accepted is on disk"
        assert all(stored[i].command.request.command == c for i, c in self.accepted.items()), "and it is what was sent"
        applied = Counter(change.command_id for change in changes if change.state is CommandState.APPLIED)
        assert all(count == 1 for count in applied.values()), "applied once at most"
        for command_id, decided in stored.items():
            final = next((c.state for c in reversed(changes) if c.command_id == command_id), decided.state)
            self.counts.commands[str(final)] += 1
        self.counts.commands["unknown or refused unstored"] = len(self.issued) - len(stored)
        reader.close()
        database.close()


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_run_survives_whatever_is_done_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRID_AGENT_LINGER_S", "2")
    run_dir = tmp_path / "runs" / "soak"
    run_dir.mkdir(parents=True)
    soak, ends = Soak(run_dir, random.Random(SEED)), time.monotonic() + 60 * MINUTES
    with TrainerProcess(run_dir, serves=False) as first:
        first.steps(5)
    with Noisy(run_dir) as follower:
        while time.monotonic() < ends:
            soak.life(follower)
        last = JournalReader(run_dir).last_seq()
        while soak.shown[-1].seq < last:
            soak.see(follower)
        soak.counts.messages_dropped_doubled_or_late = follower.mistreated
    soak.check()
    soak.settle()
    steps = sum(type(row.record).__name__ == "StepRecord" for row in soak.shown)
    assert frame(run_dir).height == steps
    end_agents(tmp_path)
    with capsys.disabled():
        print(f"\n\nsoak, {MINUTES:g} minutes, seed {SEED}\n{soak.counts}\n")
    assert soak.counts.rows_lost == 0 and soak.counts.trainers_killed > 0 and soak.counts.rows_sealed > 0
    assert soak.accepted, "some command got through"
