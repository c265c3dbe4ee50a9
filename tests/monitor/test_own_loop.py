"""A watched loop as the commands and alerts see it: no files, no agent, clocks and commands passed in."""

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer_core.engine.knobs import Knob
from trainer_core.engine.own_loop import OwnLoop
from trainer_core.spec.commands import (
    AcceptedCommand,
    AcknowledgeAlert,
    Annotate,
    ApplyRemedy,
    Command,
    CommandRequest,
    CommandState,
    ForcePhase,
    LockPrediction,
    Pause,
    Refusal,
    Resume,
    Rollback,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    SilenceAlert,
    Stop,
)
from trainer_core.spec.config import Config
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    CommandChanged,
    MetricsMeasured,
    Record,
    RunState,
    StepRecord,
)


class Watched:
    """A loop, what it said, and what it is told next."""

    def __init__(self, **more: Any) -> None:
        self.said: list[Record] = []
        self.orders: list[Command] = []
        self.later: list[Command] = []
        """Orders that come while it waits, one at each wait."""
        self.model = torch.nn.Linear(2, 2)
        groups = [{"params": [self.model.weight]}, {"params": [self.model.bias], "lr": 0.2, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
        self._ids = itertools.count()
        options: dict[str, Any] = {"optimizer": self.optimizer} | more
        self.loop = OwnLoop(
            Config(), lambda record, attempt: self.said.append(record), take_commands=self._take,
            clock=lambda: 0.25 * len(self.said), wall_clock=lambda: 0.0, wait=self._wait, **options,
        )  # fmt: skip

    def _take(self) -> list[AcceptedCommand]:
        taken, self.orders = self.orders, []
        return [AcceptedCommand(CommandRequest(f"command-{next(self._ids)}", c), "ann", 0.0) for c in taken]

    def _wait(self, seconds: float) -> None:
        assert self.later, "it waits for ever"
        self.orders.append(self.later.pop(0))

    def steps(self, count: int, loss: float = 1.0, grad_norm: float | None = 1.0) -> None:
        for _ in range(count):
            self.loop.step(None, {"loss": loss, "grad_norm": grad_norm}, {})

    def told(self, command: Command) -> CommandChanged:
        """Give a command, take one step, and say how the command ended."""
        self.orders.append(command)
        self.steps(1)
        return [r for r in self.said if isinstance(r, CommandChanged)][-1]

    def alerts(self) -> list[str]:
        return [r.rule for r in self.said if isinstance(r, AlertRaised)]

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def test_a_step_records_what_was_measured_and_nothing_else() -> None:
    watched = Watched(optimizer=None)
    watched.loop.step(None, {"loss": 2.0}, {"accuracy": 0.5, "strange": math.nan})
    watched.loop.step(7, {"grad_norm": 3.0, "param_norm": 30.0}, {})
    first, metrics, second = watched.said
    assert isinstance(first, StepRecord) and isinstance(second, StepRecord) and isinstance(metrics, MetricsMeasured)
    assert (first.step, first.loss, first.grad_norm, first.learning_rate, first.step_seconds) == (1, 2.0, *[None] * 3)
    assert metrics.step == 1 and metrics.values["accuracy"] == 0.5 and math.isnan(metrics.values["strange"])
    assert (second.step, second.loss, second.loss_ema, second.grad_param_ratio) == (7, None, None, 0.1)
    assert second.phase is Phase.FULL and second.step_seconds is not None
    with pytest.raises(ConfigError, match="steps only grow; the last one was 7"):
        watched.loop.step(7, {}, {})


def test_a_nan_loss_is_raised_at_once_and_resolved_after_healthy_steps() -> None:
    watched = Watched()
    watched.steps(2)
    watched.steps(1, loss=math.nan)
    raised = [r for r in watched.said if isinstance(r, AlertRaised)]
    assert [(r.rule, r.remedy, r.commands) for r in raised] == [("not finite", None, ())]
    watched.steps(10)
    assert [r.rule for r in watched.said if isinstance(r, AlertResolved)] == ["not finite"]


@pytest.mark.parametrize(
    ("rule", "losses", "norms"),
    [
        ("gradient norm", [1.0] * 10, [1.0] * 7 + [50.0] * 3),
        ("gradient explosion", [1.0] * 63, [0.2] * 60 + [9.0] * 3),
        ("gradient vanishing", [1.0] * 40, [0.05] * 40),
        ("loss deviation", [1.0 + 0.01 * (i % 2) for i in range(20)] + [5.0, 25.0, 125.0], [1.0] * 23),
        ("oscillation", [1.0 + 0.5 * (-1) ** i for i in range(60)], [1.0] * 60),
        ("plateau", [1.0] * 520, [1.0] * 520),
    ],
)
def test_every_rule_that_needs_no_phase_is_raised(rule: str, losses: list[float], norms: list[float]) -> None:
    watched = Watched()
    for loss, norm in zip(losses[:-1], norms[:-1], strict=True):
        watched.loop.step(None, {"loss": loss, "grad_norm": norm}, {})
    watched.steps(1, losses[-1], norms[-1])
    assert rule in watched.alerts()


@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm", "update_norm", "learning_rate"])
@pytest.mark.parametrize("value", [1.7e308, -1e300, 1e160, 1e-300, 5e-324, math.inf])
def test_a_number_of_any_size_is_recorded_and_ends_no_loop(name: str, value: float) -> None:
    watched = Watched(optimizer=None)
    for step in range(40):
        odd = {name: value} if step % 2 else {}
        watched.loop.step(None, {"loss": 1.0, "grad_norm": 1.0, "param_norm": 2.0} | odd, {})
    assert [getattr(r, name) for r in watched.said if isinstance(r, StepRecord)][1::2] == [value] * 20


def test_a_calm_loop_raises_nothing() -> None:
    watched = Watched()
    for step in range(400):
        watched.loop.step(None, {"loss": 2.0 * math.exp(-step / 100), "grad_norm": 1.0}, {})
    assert watched.alerts() == []


def test_learning_rate_commands_keep_the_groups_ratio_and_carry_the_scheduler_along() -> None:
    watched = Watched()
    scheduler = torch.optim.lr_scheduler.LambdaLR(watched.optimizer, lambda step: 1.0 if step < 5 else 0.5)
    watched.loop.scheduler = torch.optim.lr_scheduler.ChainedScheduler([scheduler])
    assert (watched.told(ScaleLearningRate(0.5)).before, watched.rates) == ("0.1", [0.05, 0.1])
    assert (watched.told(SetLearningRate(0.2)).after, watched.rates) == ("0.2", pytest.approx([0.2, 0.4]))
    watched.optimizer.step()
    for _ in range(5):
        scheduler.step()
    assert watched.rates == pytest.approx([0.1, 0.2])
    refused = watched.told(SetLearningRate(1000.0))
    assert (refused.state, refused.refusal) == (CommandState.REJECTED, Refusal.PRECONDITION)
    assert watched.rates == pytest.approx([0.1, 0.2])


def test_a_rate_that_is_a_tensor_stays_that_tensor() -> None:
    watched = Watched()
    rate = watched.optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    assert watched.told(ScaleLearningRate(0.5)).state is CommandState.APPLIED
    assert watched.optimizer.param_groups[0]["lr"] is rate and float(rate) == pytest.approx(0.05)


def test_weight_decay_thresholds_notes_and_silence_are_obeyed() -> None:
    watched = Watched()
    assert (watched.told(SetWeightDecay(0.1)).before, watched.optimizer.param_groups[1]["weight_decay"]) == (
        "0.01",
        0.1,
    )
    assert watched.told(SetThreshold("gradient_norm_high", 0.5)).after == "0.5"
    watched.steps(3, grad_norm=0.9)
    (raised,) = [r for r in watched.said if isinstance(r, AlertRaised)]
    assert raised.rule == "gradient norm"
    assert watched.told(AcknowledgeAlert(raised.alert_id)).after == "acknowledged"
    assert "silent until" in (watched.told(SilenceAlert("gradient norm", 1000)).after or "")
    watched.told(Annotate("the data changed here"))
    assert [r.text for r in watched.said if isinstance(r, Annotated)] == ["the data changed here"]


def test_a_pause_waits_in_the_step_and_a_resume_goes_on() -> None:
    watched = Watched()
    watched.later = [Annotate("still paused"), Resume()]
    watched.orders.append(Pause())
    watched.steps(1)
    assert [r.state for r in watched.said if isinstance(r, RunState)] == ["paused", "running"]
    assert [r.text for r in watched.said if isinstance(r, Annotated)] == ["still paused"]
    assert watched.loop.step_count == 1


def test_checkpoint_and_stop_call_the_loops_own_function() -> None:
    saved: list[int] = []
    watched = Watched(save=saved.append)
    watched.steps(4)
    assert watched.told(SaveCheckpoint()).after == "step-5"
    assert watched.told(Stop()).after == "stopped"
    assert saved == [5, 6] and watched.loop.ended == ("stopped", "stopped by ann")
    without = Watched()
    assert "no way to save" in without.told(SaveCheckpoint()).detail
    assert without.told(Stop()).state is CommandState.APPLIED


def test_a_save_that_fails_is_a_failed_command_and_the_loop_goes_on() -> None:
    def save(step: int) -> None:
        raise RuntimeError("no space")

    watched = Watched(save=save)
    failed = watched.told(SaveCheckpoint())
    assert failed.state is CommandState.FAILED and "RuntimeError: no space" in failed.detail
    watched.steps(1)
    assert watched.loop.ended is None


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (ForcePhase(Phase.FULL), "no phases"),
        (SetPhaseLength(Phase.FULL, 5), "no phases"),
        (LockPrediction(True), "no predictions"),
        (Rollback(), "weights are not the monitor's"),
        (SetGradientClip(1.0), "declare a knob"),
        (SetThreshold("full_steps", 5), "has no effect"),
        (SetThreshold("nonsense", 5), "no such setting"),
        (SetThreshold("gradient_norm_high", -5), "must be a number from"),
        (ApplyRemedy("nan_loss"), "wants rollback"),
        (ApplyRemedy("nonsense"), "there is no remedy nonsense"),
        (SilenceAlert("nonsense", 5), "no alert rule called nonsense"),
        (AcknowledgeAlert("alert-0-9"), "no open alert"),
        (SetKnob("dropout", 0.1), "declared none"),
    ],
)
def test_what_the_loop_cannot_do_is_refused_with_its_reason_and_changes_nothing(command: Command, why: str) -> None:
    watched = Watched()
    config, rates, revision = watched.loop.config, watched.rates, watched.loop.state_rev
    refused = watched.told(command)
    assert (refused.state, refused.refusal) == (CommandState.REJECTED, Refusal.PRECONDITION)
    assert why in refused.detail
    assert (watched.loop.config, watched.rates, watched.loop.state_rev) == (config, rates, revision)


def test_a_remedy_is_applied_as_a_whole_and_suggested_only_where_it_can_be() -> None:
    watched = Watched()
    applied = watched.told(ApplyRemedy("underfitting"))
    assert applied.state is CommandState.APPLIED
    assert watched.rates == pytest.approx([0.3, 0.6]) and watched.optimizer.param_groups[0]["weight_decay"] == 1e-4
    watched.steps(600)
    (plateau,) = [r for r in watched.said if isinstance(r, AlertRaised) and r.rule == "plateau"]
    assert plateau.remedy == "loss_plateau" and plateau.commands == (ScaleLearningRate(2.0),)


def _knob(box: dict[str, float], setter: Callable[[float], object] | None = None, **bounds: float) -> Knob:
    low, high = bounds.get("low", 0.0), bounds.get("high", 0.5)
    return Knob("dropout", lambda: box["p"], setter or (lambda value: box.update(p=value)), low, high)


def test_a_knob_is_set_within_its_bounds_and_refused_outside_them() -> None:
    watched, box = Watched(), {"p": 0.1}
    said = watched.loop.knobs.declare(_knob(box), 0)
    assert (said.name, said.low, said.high, said.value) == ("dropout", 0.0, 0.5, 0.1)
    applied = watched.told(SetKnob("dropout", 0.5))
    assert (applied.before, applied.after, box["p"]) == ("0.1", "0.5", 0.5)
    assert "from 0 to 0.5" in watched.told(SetKnob("dropout", 0.6)).detail
    assert "this run has dropout (0 to 0.5)" in watched.told(SetKnob("drop", 0.1)).detail
    assert box["p"] == 0.5


def test_a_knob_that_breaks_fails_its_command_and_not_the_loop() -> None:
    watched, box = Watched(), {"p": 0.1}

    def broken(value: float) -> None:
        raise KeyError("model")

    watched.loop.knobs.declare(_knob(box, broken), 0)
    failed = watched.told(SetKnob("dropout", 0.2))
    assert failed.state is CommandState.FAILED and "KeyError" in failed.detail and box["p"] == 0.1
    assert watched.loop.knobs.state_dict() == {}


def test_a_knob_that_fails_half_way_is_set_back_and_says_what_it_is() -> None:
    watched, box = Watched(), {"p": 0.1}

    def half(value: float) -> None:
        box.update(p=value)
        if value != 0.1:
            raise RuntimeError("the optimizer would not have it")

    watched.loop.knobs.declare(_knob(box, half), 0)
    failed = watched.told(SetKnob("dropout", 0.2))
    assert failed.state is CommandState.FAILED and box["p"] == 0.1
    assert failed.detail.endswith("RuntimeError: the optimizer would not have it; it is 0.1")
    assert watched.loop.knobs.state_dict() == {}


def test_a_knob_that_cannot_be_read_after_it_was_set_is_set_back_too() -> None:
    watched, box, reads = Watched(), {"p": 0.1}, iter([0.1, 0.1])
    knob = Knob("dropout", lambda: next(reads), lambda value: box.update(p=value), 0.0, 0.5)
    watched.loop.knobs.declare(knob, 0)
    failed = watched.told(SetKnob("dropout", 0.2))
    assert failed.state is CommandState.FAILED and box["p"] == 0.1
    assert "what it is cannot be read: StopIteration" in failed.detail


def test_a_command_that_ends_the_program_has_an_end_too() -> None:
    watched = Watched(save=lambda step: sys.exit(3))
    with pytest.raises(SystemExit):
        watched.told(SaveCheckpoint())
    ended = [r for r in watched.said if isinstance(r, CommandChanged)][-1]
    assert (ended.state, ended.detail) == (CommandState.FAILED, "SystemExit: 3")


@pytest.mark.parametrize(
    ("knob", "why"),
    [
        (Knob(5, lambda: 0.1, print, 0.0, 1.0), "knob 5: a name is"),  # type: ignore[arg-type]
        (Knob("a\nb", lambda: 0.1, print, 0.0, 1.0), "a name is 1 to 200 printable"),
        (Knob("\udcff", lambda: 0.1, print, 0.0, 1.0), "a name is 1 to 200 printable"),
        (Knob("a", lambda: 0.1, print, "x", 1.0), "low = 'x', high = 1.0: must be numbers"),  # type: ignore[arg-type]
        (Knob("a", lambda: 0.1, print, 0, 10**400), "must be numbers"),
        (Knob("a", 0.1, print, 0, 1), "get = 0.1: must be a function"),  # type: ignore[arg-type]
        (Knob("a", lambda: None, print, 0, 1), "get gave None: must be a number"),  # type: ignore[arg-type,return-value]
    ],
)
def test_a_knob_of_other_types_is_refused_in_words(knob: Knob, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Watched().loop.knobs.declare(knob, 0)


@pytest.mark.parametrize(
    ("value", "bounds", "why"),
    [
        (0.9, {}, "outside its bounds 0 to 0.5"),
        (0.1, {"low": 1.0}, "low must be below high"),
        (0.1, {"high": math.inf}, "low must be below high"),
    ],
)
def test_a_knob_that_makes_no_sense_is_refused_when_it_is_declared(
    value: float, bounds: dict[str, float], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        Watched().loop.knobs.declare(_knob({"p": value}, **bounds), 0)


def test_a_knob_takes_the_value_it_was_set_to_before_it_is_declared() -> None:
    watched, box = Watched(), {"p": 0.1}
    watched.loop.knobs.load_state_dict({"dropout": 0.4, "gone": 1.0})
    assert watched.loop.knobs.declare(_knob(box), 0).value == 0.4
    assert box["p"] == 0.4


class Stubborn:
    """A scheduler whose base rates cannot be set."""

    @property
    def base_lrs(self) -> list[float]:
        return [0.1, 0.2]


def test_a_learning_rate_that_cannot_be_set_everywhere_is_set_nowhere() -> None:
    watched = Watched(scheduler=Stubborn())
    watched.steps(1)
    config = watched.loop.config
    for command in (ScaleLearningRate(0.5), SetLearningRate(0.05), ApplyRemedy("underfitting")):
        ended = watched.told(command)
        assert (ended.state, watched.rates) == (CommandState.FAILED, [0.1, 0.2])
        assert "base_lrs" in ended.detail
    assert "all or nothing" in ended.detail and watched.loop.config == config
    assert [group["weight_decay"] for group in watched.optimizer.param_groups] == [0.01, 0.0]
    assert watched.loop.state_rev == 0
