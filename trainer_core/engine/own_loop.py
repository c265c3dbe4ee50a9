"""A training loop of the user's own, watched: values in, step records and alerts out, generic commands obeyed.

Everything that needs no phases is the trainer's own (curve, baselines, health, alarms, inbox, knobs). Knows no file, no
socket, and of the optimizer only its ``param_groups``; never imports torch.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from trainer_core.engine.alarms import Alarms, remedy_of
from trainer_core.engine.decay import with_decay_of
from trainer_core.engine.health import Health
from trainer_core.engine.inbox import Inbox
from trainer_core.engine.knobs import Knobs
from trainer_core.engine.own_commands import carry_out, supported
from trainer_core.learning.loss_curve import Baseline, LossCurve
from trainer_core.spec.alerts import AlertRule
from trainer_core.spec.commands import AcceptedCommand
from trainer_core.spec.config import Config
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import MetricsMeasured, Record, RunState, StepRecord, ValidationMeasured
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity

_POLL_S = 0.02


class Optimizer(Protocol):
    """What is needed of an optimizer: groups with ``lr`` and perhaps ``weight_decay``, as in torch.optim."""

    param_groups: list[dict[str, Any]]


class OwnLoop:
    """One process's stretch of a watched loop. ``say(record, attempt)``, the clocks and the commands are passed in."""

    phase: Phase | None = None
    """There are none: a command's answer names no phase."""

    def __init__(
        self,
        config: Config,
        say: Callable[[Record, int], None],
        *,
        optimizer: Optimizer | None = None,
        scheduler: object = None,
        save: Callable[[int], object] | None = None,
        saved: Callable[[int, object, str, float], str] | None = None,
        take_commands: Callable[[], Iterable[AcceptedCommand]] = tuple,
        alert_open: Callable[[str], bool] = lambda alert_id: False,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config if optimizer is None else with_decay_of(config, optimizer.param_groups)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.save, self.saved = save, saved
        self.step_count = self.state_rev = self.attempt = self.backward_passes = 0
        self.paused = False
        self.ended: tuple[str, str] | None = None
        """(state, because) once the loop has ended: finished, stopped or failed."""
        self.total_steps: int | None = None
        self.curve, self.grad_baseline, self.update_baseline = LossCurve(), Baseline(), Baseline()
        self.health, self.knobs = Health(), Knobs()
        self.alarms = Alarms(self.record, lambda: self.attempt, suggest=self.suggest)
        self.all_alarms = [self.alarms]
        """Its own, and the machine's when somebody watches that."""
        self.inbox = Inbox(self, lambda command, actor: carry_out(command, self, actor), wall_clock)
        self._say, self._take_commands, self._clock, self._wait = say, take_commands, clock, wait
        self.alert_open = alert_open
        """Whether an alert that no rule raised (the journal's, the agent's) is open."""
        self._began_at = 0
        self._last_at: float | None = None

    def record(self, record: Record) -> None:
        """Say something."""
        self._say(record, self.attempt)
        self.health.hear(record)

    def begin_at(self, step: int) -> None:
        """The loop goes on after ``step``."""
        self.step_count = self._began_at = step

    def step(self, step: int | None, measured: Mapping[str, float | None], metrics: Mapping[str, float]) -> None:
        """Record one step, raise alerts, obey commands; waits here while paused."""
        number = self.step_count + 1 if step is None else step
        if number <= self.step_count:
            last = f"the last one was {self.step_count}" if self.step_count else "the first is 1, or a later one"
            raise ConfigError(f"step = {number}: steps only grow; {last}")
        now = self._clock()
        seconds = None if self._last_at is None else now - self._last_at
        self.step_count = number
        self.backward_passes += 1
        record, finite = self._recorded(measured, seconds)
        self.record(record)
        if metrics:
            self.record(MetricsMeasured(number, dict(metrics)))
        signals = self.health.signals(record, self.config, True)
        self.alarms.check(record, finite, self.config, signals)
        told = self.health.told(number, signals)
        if told is not None:
            self.record(told)
        self.boundary()
        self._last_at = self._clock()

    def _recorded(self, measured: Mapping[str, float | None], seconds: float | None) -> tuple[StepRecord, bool]:
        """The record of the step and whether everything measured in it is finite."""
        loss, grad_norm = measured.get("loss"), measured.get("grad_norm")
        param_norm, update_norm = measured.get("param_norm"), measured.get("update_norm")
        finite = all(value is None or math.isfinite(value) for value in (loss, grad_norm, update_norm))
        deviation = self.curve.deviation(loss) if loss is not None else None
        mean = self.update_baseline.mean
        if loss is not None:
            self.curve.update(loss)
        if finite and grad_norm is not None:
            self.grad_baseline.update(grad_norm)
        if finite and update_norm is not None:
            self.update_baseline.update(update_norm)
        return StepRecord(
            step=self.step_count,
            batch=self.step_count,
            phase=Phase.FULL,
            cycle=0,
            step_in_phase=self.step_count - self._began_at,
            phase_budget=None,
            loss=loss,
            loss_ema=self.curve.ema if loss is not None else None,
            loss_sigma=self.curve.sigma if loss is not None else None,
            loss_deviation=deviation,
            grad_norm=grad_norm,
            grad_norm_baseline=self.grad_baseline.mean if grad_norm is not None else None,
            grad_param_ratio=grad_norm / param_norm if grad_norm is not None and param_norm else None,
            grad_variance=self.grad_baseline.variance if grad_norm is not None else None,
            update_norm=update_norm,
            update_norm_baseline=self.update_baseline.mean if update_norm is not None else None,
            update_ratio=update_norm / mean if update_norm is not None and mean else None,
            param_norm=param_norm,
            learning_rate=measured.get("learning_rate", self.learning_rate),
            sign_changes=self.curve.sign_changes if loss is not None else None,
            loss_change=self.curve.relative_change if loss is not None else None,
            step_seconds=seconds,
            backward_passes=self.backward_passes,
        ), finite

    @property
    def learning_rate(self) -> float | None:
        """Of the first parameter group; None without an optimizer, or where reading it would wait for a device."""
        rate = self.optimizer.param_groups[0].get("lr") if self.optimizer is not None else None
        if rate is None or (hasattr(rate, "device") and str(rate.device) != "cpu"):
            return None
        return float(rate)

    def validated(self, loss: float, accuracy: float | None, seconds: float) -> None:
        """Held-out loss; overfitting and underfitting are judged at the next step."""
        self.record(ValidationMeasured(self.step_count, loss, accuracy, seconds))

    # -- the boundary -----------------------------------------------------------------------------------------------

    def boundary(self) -> None:
        """Apply what is due; while paused, wait for more."""
        self._poll()
        while self.paused and self.ended is None:
            self._wait(_POLL_S)
            self._poll()

    def _poll(self) -> None:
        self.inbox.put(self._take_commands())
        if self.ended is None:
            self.inbox.apply_due()

    def set_paused(self, paused: bool, because: str) -> None:
        """Pause or go on; no record when nothing changes."""
        if paused != self.paused:
            self.paused = paused
            self.record(RunState(self.step_count, "paused" if paused else "running", because))

    def end(self, state: str, because: str) -> None:
        """The loop has ended; ``close`` writes it."""
        self.paused = False
        self.ended = self.ended or (state, because)

    def close(self) -> None:
        """Say how it ended; commands that still wait are refused."""
        state, because = self.ended = self.ended or ("finished", "the training loop ended")
        self.inbox.put(self._take_commands())
        self.inbox.close(f"the run has {state}")
        self.record(RunState(self.step_count, state, because))

    def suggest(self, rule: AlertRule, level: Severity) -> str | None:
        """The rule's remedy, when this loop can carry it out."""
        remedy = remedy_of(rule, level)
        commands = REMEDIES[remedy](self.config) if remedy is not None else ()
        return remedy if commands and all(supported(command, self) is None for command in commands) else None
