"""Rows as a run writes them, made without a trainer: what the pure tests are fed with."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from trainer_core.spec.commands import Command, CommandState, Refusal
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CommandChanged,
    PhaseChanged,
    PredictedStretch,
    Record,
    Row,
    RunStarted,
    StepRecord,
)

BEGAN = 1_700_000_000.0


@dataclass
class Script:
    """Writes rows of rising seq; one step takes ``step_seconds``."""

    rows: list[Row] = field(default_factory=list)
    attempt: int = 1
    step: int = 0
    cycle: int = 0
    phase: Phase = Phase.WARMUP
    backward: int = 0
    step_seconds: float = 0.1
    time: float = BEGAN

    def say(self, record: Record) -> None:
        self.rows.append(Row(len(self.rows) + 1, self.time, self.attempt, record))

    def start(self, total: int | None = 1000) -> "Script":
        config = {k: v for k, v in msgspec.to_builtins(Config()).items() if k != "preset"}
        self.say(RunStarted(0, "run", "digits", config, ("a", "b"), 10, total, "cpu", {}, 1))
        return self

    def enter(
        self, phase: Phase, budget: int | None = None, because: Iterable[str] = ("confident (0.91 > 0.85)",)
    ) -> None:
        if phase is Phase.FULL:
            self.cycle += 1
        self.say(PhaseChanged(self.step + 1, self.phase, phase, tuple(because), self.cycle, budget))
        self.phase = phase

    def steps(self, count: int, loss: float | None = None, budget: int | None = None, **fields: object) -> "Script":
        for inside in range(1, count + 1):
            self.step += 1
            self.time += self.step_seconds
            self.backward += self.phase is not Phase.PREDICT
            value = 2.0 * math.exp(-self.step / 500) if loss is None else loss
            values: dict[str, object] = {"confidence": 0.9, "loss_ema": value}
            values["grad_norm"] = None if self.phase is Phase.PREDICT else 1.0
            self.say(
                StepRecord(
                    self.step, self.step, self.phase, self.cycle, inside, budget, value,
                    backward_passes=self.backward, **{**values, **fields},  # type: ignore[arg-type]
                )
            )  # fmt: skip
        return self

    def stretch(self, count: int, start: float = 1.0, end: float = 0.9) -> None:
        first, self.step = self.step + 1, self.step + count
        self.time += 0.01
        edges = (start, end)
        self.say(
            PredictedStretch(
                self.step, first, self.step, self.step, self.cycle, edges, tuple(e - 0.1 for e in edges),
                tuple(e + 0.1 for e in edges), 0.1, 0.9, 0.01, self.backward,
            )
        )  # fmt: skip

    def roll_back(self, step: int, because: str = "rollback by operator") -> None:
        reached, self.step, self.attempt = self.step, step, self.attempt + 1
        self.say(AttemptStarted(step, self.attempt, self.attempt - 1, reached, f"step-{step}", because))

    def command(
        self, command: Command, state: CommandState, command_id: str = "c0000001", rev: int = 0, **fields: object
    ) -> None:
        self.say(
            CommandChanged(self.step, self.phase, command_id, command, state, "operator", rev, **fields)  # type: ignore[arg-type]
        )

    def refuse(self, command: Command, why: Refusal, detail: str) -> None:
        self.command(command, CommandState.REJECTED, refusal=why, detail=detail)


def cycled(cycles: int = 4) -> Script:
    """A warmup and some cycles of FULL, a predicted stretch and CORRECT."""
    script = Script().start()
    script.steps(20)
    for _ in range(cycles):
        script.enter(Phase.FULL, 10)
        script.steps(10, budget=10)
        script.enter(Phase.PREDICT, 12)
        script.stretch(12)
        script.enter(Phase.CORRECT, 3)
        script.steps(3, budget=3)
    return script
