"""Claims about the learning rate: torch's own curves point by point, and a change no schedule undoes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from tests.engine.rig import Rig
from trainer_core.learning.schedules import Schedule
from trainer_core.spec.commands import Rollback, ScaleLearningRate
from trainer_core.spec.config import Config
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, AlertResolved

PEAK = 4e-3
SCHEDULES: dict[str, dict[str, Any]] = {
    "Constant": {"type": "Constant"},
    "WarmupOnly": {"type": "WarmupOnly", "warmup_steps": 20, "warmup_init": 1e-4},
    "WarmupStableDecay": {
        "type": "WarmupStableDecay",
        "warmup_steps": 20,
        "warmup_init": 1e-4,
        "stable_steps": 15,
        "decay_steps": 40,
        "decay_min": 2e-4,
    },
    "triangular": {"type": "Cyclic", "base_lr": 1e-4, "max_lr": 2e-3, "cycle_length": 30, "mode": "triangular"},
    "triangular2": {"type": "Cyclic", "base_lr": 1e-4, "max_lr": 2e-3, "cycle_length": 30, "mode": "triangular2"},
    "exp_range": {
        "type": "Cyclic",
        "base_lr": 1e-4,
        "max_lr": 2e-3,
        "cycle_length": 30,
        "mode": "exp_range",
        "gamma": 0.97,
    },
    "odd cycle": {"type": "Cyclic", "base_lr": 1e-4, "max_lr": 2e-3, "cycle_length": 7, "mode": "triangular2"},
}


def optimizer(*rates: float) -> torch.optim.Optimizer:
    """One group of one weight for each rate."""
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in rates], lr=0.1)


def configured(name: str) -> Config:
    """A configuration with one of the schedules and the peak."""
    return resolve({"learning_rate": {"initial": PEAK}, "learning_rate_schedule": SCHEDULES[name]}).config


def cyclic(o: torch.optim.Optimizer, s: dict[str, Any]) -> torchs.LRScheduler:
    """torch's own cycle of the same settings."""
    half = s["cycle_length"] / 2
    gamma = s.get("gamma", 1.0)
    return torchs.CyclicLR(o, s["base_lr"], s["max_lr"], half, half, mode=s["mode"], gamma=gamma, cycle_momentum=False)  # type: ignore[arg-type]  # torch takes half steps


def warmup(o: torch.optim.Optimizer, s: dict[str, Any]) -> torchs.LRScheduler:
    """torch's own linear increase."""
    return torchs.LinearLR(o, s["warmup_init"] / PEAK, 1.0, s["warmup_steps"])


def warmup_stable_decay(o: torch.optim.Optimizer, s: dict[str, Any]) -> torchs.LRScheduler:
    """torch's own three schedulers, one after the other."""
    decay = torchs.CosineAnnealingLR(o, s["decay_steps"], eta_min=s["decay_min"])
    steady = torchs.ConstantLR(o, 1.0, 1)
    ends = [s["warmup_steps"], s["warmup_steps"] + s["stable_steps"]]
    return torchs.SequentialLR(o, [warmup(o, s), steady, decay], ends)


TWINS: dict[str, Callable[[torch.optim.Optimizer, dict[str, Any]], torchs.LRScheduler]] = {
    "Constant": lambda o, s: torchs.ConstantLR(o, 1.0, 1),
    "WarmupOnly": warmup,
    "WarmupStableDecay": warmup_stable_decay,
    **dict.fromkeys(("triangular", "triangular2", "exp_range", "odd cycle"), cyclic),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*", "ignore:The epoch parameter")
def test_every_point_of_the_curve_is_torchs_own(name: str) -> None:
    ours, theirs = optimizer(PEAK), optimizer(PEAK)
    schedule, scheduler = Schedule(ours, configured(name)), TWINS[name](theirs, SCHEDULES[name])
    last = 75 if name == "WarmupStableDecay" else 200  # torch's cosine turns upwards after its end
    for step in range(last + 1):
        applied = schedule.apply(step)
        expected = theirs.param_groups[0]["lr"]
        assert ours.param_groups[0]["lr"] == applied == pytest.approx(expected, rel=1e-9), f"step {step}"
        theirs.step()
        scheduler.step()


def test_after_its_decay_the_rate_stays_at_the_minimum() -> None:
    schedule = Schedule(optimizer(PEAK), configured("WarmupStableDecay"))
    assert [schedule.apply(step) for step in (75, 76, 10_000)] == pytest.approx([2e-4] * 3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_change_by_the_operator_survives_every_schedule_and_moves_every_group_alike(name: str) -> None:
    changed, untouched = optimizer(PEAK, PEAK / 4, 5 * PEAK), optimizer(PEAK)
    schedule, plain = Schedule(changed, configured(name)), Schedule(untouched, configured(name))
    for step in range(1, 121):
        if step == 10:
            schedule.scale *= 0.5
        if step == 50:
            schedule.scale *= 3.0
        factor = 1.0 if step < 10 else 0.5 if step < 50 else 1.5
        rate = plain.apply(step) * factor
        schedule.apply(step)
        rates = [group["lr"] for group in changed.param_groups]
        assert rates == pytest.approx([rate, rate / 4, rate * 5]), f"step {step}"


@pytest.mark.parametrize("initial", [{}, {"initial": PEAK}])
def test_a_group_of_rate_0_holds_back_no_other_wherever_it_stands(initial: dict[str, float]) -> None:
    for rates in ((0.0, PEAK, PEAK / 4), (PEAK, 0.0, PEAK / 4)):
        o = optimizer(*rates)
        schedule = Schedule(o, resolve({"learning_rate": initial}).config)
        assert schedule.apply(1) == PEAK and [group["lr"] for group in o.param_groups] == pytest.approx(rates)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_goes_on_with_the_operators_scale(name: str) -> None:
    before, after = Schedule(optimizer(PEAK), configured(name)), Schedule(optimizer(PEAK), configured(name))
    before.scale = 0.25
    after.load_state_dict(before.state_dict())
    assert [after.apply(step) for step in range(100)] == [before.apply(step) for step in range(100)]


def test_a_rate_that_is_a_tensor_is_set_in_place() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    rate = torch.tensor(PEAK)
    adam = torch.optim.Adam([parameter], lr=rate)
    Schedule(adam, configured("triangular")).apply(15)
    assert adam.param_groups[0]["lr"] is rate and math.isclose(float(rate), 2e-3, rel_tol=1e-6)


def told(rig: Rig) -> list[str]:
    """What was said of a schedule beside the trainer's."""
    return [alert.message for alert in rig.of(AlertRaised) if alert.rule == "learning rate schedule"]


@pytest.mark.parametrize("rate", [1e-3, torch.tensor(1e-3)], ids=["number", "tensor"])
def test_a_scheduler_beside_the_trainers_is_told_of_once_and_has_no_effect(
    tmp_path: Path, rate: float | torch.Tensor
) -> None:
    rig = Rig(tmp_path, optimizer=lambda ps: torch.optim.AdamW(ps, rate, foreach=False)).begin()
    scheduler = torchs.LambdaLR(rig.optimizer, lambda epoch: 0.9**epoch)
    rig.step()
    scheduler.step()
    with pytest.warns(UserWarning, match=r"0\.0009 \(it was 0\.001\), without effect.*learning_rate_schedule"):
        rig.step()
    for _ in range(5):
        scheduler.step()
        assert rig.step().learning_rate == pytest.approx(1e-3)
    assert len(told(rig)) == len(rig.of(AlertResolved)) == 1


def test_a_scheduler_that_changed_the_rate_before_the_run_is_told_of_at_its_first_step(tmp_path: Path) -> None:
    def warming(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(parameters, 1e-3)
        torchs.LinearLR(optimizer, 0.01, 1.0, 1000)
        return optimizer

    rig = Rig(tmp_path, optimizer=warming).begin()
    with pytest.warns(
        UserWarning, match=r"has a torch scheduler, without effect \(it made 1e-05 of the 0\.001 given\)"
    ):
        rig.step()
    rig.step()
    assert len(told(rig)) == 1


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("rate", [3e-3, torch.tensor(3e-3)], ids=["number", "tensor"])
def test_what_the_trainer_and_operators_do_to_the_rate_is_nobody_elses_doing(
    tmp_path: Path, rate: float | torch.Tensor
) -> None:
    make = lambda ps: torch.optim.AdamW(ps, rate, foreach=False)  # noqa: E731
    settings: dict[str, Any] = {"learning_rate_schedule": {**SCHEDULES["triangular"]}, "checkpoint_every": 5}
    rig = Rig(tmp_path, optimizer=make, scales={30: float("nan"), 33: float("nan")}, **settings).begin()
    rig.until_phase(Phase.PREDICT, 2)
    rig.tell(ScaleLearningRate(0.5))
    rig.until_step(40)
    rig.tell(Rollback())
    rig.until_step(45)
    rig.session.stop("for now")
    again = Rig(tmp_path, optimizer=make, **settings)
    again.session.resume(rig.engine.attempt, rig.engine.step_count, "resumed")
    again.until_step(60)
    assert not told(rig) and not told(again) and rig.engine.schedule.scale < 0.1
