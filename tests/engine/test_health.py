"""Claims about health: alerts neither too soon nor twice, warning signs that were there, remedies that do as said."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from tests.engine.rig import Rig, same
from trainer_core.engine.alarms import Alarms
from trainer_core.engine.health import Health
from trainer_core.spec.alerts import RULES
from trainer_core.spec.commands import (
    ApplyRemedy,
    CommandState,
    LockPrediction,
    Refusal,
    Rollback,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import HEALTH_SIGNALS
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    AttemptStarted,
    Checklist,
    CheckpointSaved,
    CommandChanged,
    HealthMeasured,
    PhaseChanged,
    PredictionEnded,
    PredictionProbed,
    Record,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity

QUIET: dict[str, Any] = {
    "probe_share": 1.0,  # half of this small batch tells too little of the loss to expect
    "gradient_norm_low": 0.0,
    "gradient_norm_extreme_low": 0.0,
    "loss_deviation_warning": 100.0,
    "divergence_threshold": 100.0,
    "grad_param_ratio_low": 0.0,
    "grad_param_ratio_high": 1e6,
    "full_share_limit": 1.0,
    "prediction_error_warning": 0.5,
}
"""Limits that the small model's healthy run never passes."""


def step(number: int, phase: Phase = Phase.FULL, loss: float = 1.0, **fields: Any) -> StepRecord:
    return StepRecord(number, number, phase, 1, number, None, loss, **fields)


def told(
    signal: str, values: Iterable[float], phase: Phase = Phase.FULL, **settings: Any
) -> list[tuple[int, str, str]]:
    """(step, what, rule) said about a signal that takes ``values`` at steps 1, 2, ..."""
    said: list[Record] = []
    alarms = Alarms(said.append, lambda: 0)
    config = resolve(settings).config
    for number, value in enumerate(values, 1):
        alarms.check(step(number, phase), True, config, {signal: value})
    return [(r.step, type(r).__name__[5:], r.rule) for r in said if isinstance(r, AlertRaised | AlertResolved)]


def test_an_alert_waits_for_its_hold_and_a_healthy_step_begins_the_count_anew() -> None:
    assert told("grad_norm", [50, 50, 1, 50, 50, 1]) == []
    assert told("grad_norm", [50, 50, 1, 50, 50, 50]) == [(6, "Raised", "gradient norm")]


def test_an_alert_is_resolved_after_its_recovery_and_not_by_one_healthy_step() -> None:
    assert told("grad_norm", [50] * 3 + [1] * 9 + [50] + [1] * 9) == [(3, "Raised", "gradient norm")]
    assert told("grad_norm", [50] * 3 + [1] * 10)[-1] == (13, "Resolved", "gradient norm")


def test_after_it_was_resolved_the_same_rule_stays_quiet_for_the_cooldown() -> None:
    values = [50] * 3 + [1] * 10 + [50] * 60
    first = [(3, "Raised", "gradient norm"), (13, "Resolved", "gradient norm")]
    assert told("grad_norm", values, alert_cooldown=20) == [*first, (33, "Raised", "gradient norm")]
    assert told("grad_norm", values, alert_cooldown=0) == [*first, (16, "Raised", "gradient norm")]
    assert told("grad_norm", values, alert_cooldown=1000) == first


def test_a_rule_looks_only_at_its_phases() -> None:
    assert told("grad_growth", [50] * 30, Phase.WARMUP) == []
    assert told("grad_growth", [50] * 30, Phase.FULL) == [(2, "Raised", "gradient explosion")]
    assert told("confidence", [0.1] * 200, Phase.PREDICT) == []


def test_both_sides_of_a_signal_are_rules_of_their_own() -> None:
    assert told("grad_norm", [0.05] * 30) == [(20, "Raised", "gradient vanishing")]
    assert told("grad_param_ratio", [0.5] * 100) == [(100, "Raised", "gradient/parameter ratio high")]
    assert told("grad_param_ratio", [1e-5] * 100) == [(100, "Raised", "gradient/parameter ratio low")]


def test_limits_are_strict_and_move_with_the_settings() -> None:
    assert told("steps_without_gain", [500]) == []
    assert told("steps_without_gain", [501]) == [(1, "Raised", "plateau")]
    assert told("steps_without_gain", [501], plateau_steps=600) == []


def test_a_worse_rung_raises_the_same_alert_again_with_the_remedy_for_it() -> None:
    said: list[Record] = []
    alarms = Alarms(said.append, lambda: 2)
    for number in range(1, 10):
        alarms.check(step(number), True, Config(), {"grad_norm": 50.0 if number % 2 else 500.0})
    raised = [r for r in said if isinstance(r, AlertRaised)]
    assert [(r.severity, r.alert_id, r.remedy) for r in raised] == [
        (Severity.WARNING, "alert-2-1", "gradient_explosion")
    ], "a worse value at every other step has not held"
    for between in ([1.0], [50.0], []):
        alarms = Alarms(said.append, lambda: 2)
        said.clear()
        for number, value in enumerate([50.0] * 3 + between + [500.0] * 3, 1):
            alarms.check(step(number), True, Config(), {"grad_norm": value})
        raised = [r for r in said if isinstance(r, AlertRaised)]
        assert [(r.step, r.severity, r.alert_id, r.remedy) for r in raised] == [
            (3, Severity.WARNING, "alert-2-1", "gradient_explosion"),
            (6 + len(between), Severity.CRITICAL, "alert-2-1", "extreme_gradient"),
        ]
    assert raised[1].commands == (Rollback(), SetGradientClip(1.0), ScaleLearningRate(0.5))
    assert (raised[1].value, raised[1].limit) == (500.0, 100.0)


def test_every_rule_raises_on_its_own_signal_and_carries_causes_and_what_to_do() -> None:
    for rule in RULES:
        said: list[Record] = []
        alarms = Alarms(said.append, lambda: 0)
        worst = 1e12 if rule.above else -1e12
        for number in range(1, rule.hold + 1):
            alarms.check(step(number, rule.phases[-1]), True, Config(), {rule.signal: worst})
        raised = [r for r in said if isinstance(r, AlertRaised) and r.rule == rule.name]
        assert [r.step for r in raised] == [rule.hold], rule.name
        assert raised[0].severity is rule.worst and raised[0].limit is not None, rule.name
        assert raised[0].causes and (raised[0].commands or raised[0].advice), rule.name
        assert ("for the next run: " in raised[0].message) == bool(rule.advice)


# -- what the numbers say ---------------------------------------------------------------------------------------------


def signals(health: Health, record: StepRecord, **settings: Any) -> dict[str, float | None]:
    return health.signals(record, resolve(settings).config, False)


def test_a_plateau_is_counted_from_the_last_real_gain() -> None:
    health = Health()
    for number in range(1, 101):
        signals(health, step(number, loss=2.0 * 0.97**number))
    assert signals(health, step(101, loss=0.05))["steps_without_gain"] == 0
    noise = [0.01 * (-1) ** n for n in range(3000)]
    counts = [signals(health, step(102 + n, loss=0.09 + x))["steps_without_gain"] or 0 for n, x in enumerate(noise)]
    assert counts[-1] > 500
    assert all(b in (0, a + 1) for a, b in pairwise(counts))


def test_warmup_is_no_plateau() -> None:
    health = Health()
    last = [signals(health, step(n, Phase.WARMUP, loss=1.0)) for n in range(1, 900)][-1]
    assert last["steps_without_gain"] == 0


def validations(*losses: tuple[float, float], **settings: Any) -> list[dict[str, float | None]]:
    """The signals after validations at which (training, validation) loss were so much."""
    health, seen, number = Health(), [], 0
    for train, held_out in losses:
        for _ in range(400):  # the smoothed loss arrives
            number += 1
            signals(health, step(number, loss=train), **settings)
        health.hear(ValidationMeasured(number, held_out, None, 0.0))
        number += 1
        seen.append(signals(health, step(number, loss=train), **settings))
    return seen


def dying(layers: list[tuple[float, ...]], loss: float = 2.3, phase: Phase = Phase.FULL) -> Health:
    """A run whose layers had these gradient norms, step by step, at a loss that does not fall."""
    health = Health()
    for number, norms in enumerate(layers, 1):
        signals(health, step(number, phase, loss=loss, layer_grad_norms=norms))
    return health


def test_layers_that_had_a_gradient_and_have_none_are_dead_and_others_are_not() -> None:
    alive, dead, unused = (0.1, 0.2, 0.3), (0.0, 0.0, 0.3), (0.0, 0.0, 0.1)
    assert dying([alive] * 5 + [dead] * 30).dead
    assert dying([alive] * 5 + [dead] * 30, phase=Phase.WARMUP).dead
    assert not dying([alive] * 5 + [dead] * 8).dead, "a few batches"
    assert not dying([alive] * 5 + [dead, dead, dead, alive] * 20).dead, "some batches reach them"
    assert not dying([alive] * 5 + [(0.0, 0.2, 0.3)] * 60).dead, "one of three"
    assert not dying([unused] * 60).dead, "they never had one"
    assert not dying([alive] * 5 + [dead] * 30, loss=0.0).dead, "nothing is left to learn"
    assert not dying([alive] * 5 + [dead] * 30 + [alive] * 30).dead, "they came back"
    health = dying([alive] * 5)
    for number in range(6, 60):
        signals(health, step(number, loss=2.0 * 0.9**number, layer_grad_norms=dead))
    assert not health.dead, "the loss falls: frozen layers are the user's affair"


def test_what_died_is_no_plateau_and_no_reason_for_a_higher_rate() -> None:
    health = dying([(0.1, 0.2, 0.3)] * 5 + [(0.0, 0.0, 0.05)] * 600)
    found = signals(health, step(606, loss=2.3, layer_grad_norms=(0.0, 0.0, 0.05), grad_norm=0.05))
    assert found["steps_without_gain"] == 605 and found["dead_layers"] == pytest.approx(2 / 3)
    judged = health.judged(found, Config(), locked=False)
    assert judged["steps_without_gain"] is judged["grad_norm"] is judged["underfitting"] is None
    assert judged["dead_layers"] == found["dead_layers"]
    raising = {rule.signal for rule in RULES if rule.remedy in ("raise_learning_rate", "loss_plateau", "underfitting")}
    assert raising <= {name for name, value in judged.items() if value is None}


def test_a_loss_that_stands_still_above_its_start_is_no_plateau() -> None:
    health = Health()
    for number in range(1, 700):
        found = signals(health, step(number, loss=2.0 if number < 5 else 9.0))
    assert found["loss_rise"] == pytest.approx(3.5, rel=1e-3) and found["steps_without_gain"] == 698
    assert health.judged(found, Config(), locked=False)["steps_without_gain"] is None
    for number in range(700, 1400):
        found = signals(health, step(number, loss=2.1))
    assert found["loss_rise"] == pytest.approx(0.05, abs=1e-3)
    assert health.judged(found, Config(), locked=False)["steps_without_gain"] is not None


def fitted(first: float, loss: float, grad_norm: float, steps: int = 600) -> dict[str, float | None]:
    health = Health()
    for number in range(1, steps):
        small = {"grad_norm": grad_norm, "grad_param_ratio": 1e-5, "layer_grad_norms": (grad_norm,)}
        found = signals(health, step(number, loss=first if number < 5 else loss, **small))
    return health.judged(found, Config(), locked=False)


def test_small_gradients_of_a_fitted_model_are_no_fault() -> None:
    small = {"grad_norm", "grad_param_ratio", "layer_norm_low", "steps_without_gain"}
    ignored = {name for name, value in fitted(2.3, 0.01, 0.02).items() if value is None}
    assert small <= ignored
    judged = fitted(2.3, 1.9, 0.02)
    assert "grad_norm" not in judged and judged["layer_norm_low"] == 0.02, "nothing was learned yet"
    judged = fitted(2.3, 0.01, 30.0)
    assert "grad_norm" not in judged and judged["steps_without_gain"] is None, "large ones are no sign of that"


def test_overfitting_needs_validation_to_rise_while_training_falls() -> None:
    both = validations((1.0, 1.0), (0.8, 1.1), (0.6, 1.2), (0.4, 1.3))
    assert [s["overfitting"] for s in both] == [0, 1, 2, 3]
    assert both[-1]["validation_gap"] == pytest.approx(0.9, abs=0.01)
    assert [s["overfitting"] for s in validations((1.0, 1.0), (1.0, 1.1), (1.0, 1.2), (1.1, 1.3))] == [0, 0, 0, 0]
    assert [s["overfitting"] for s in validations((1.0, 1.0), (0.8, 0.9), (0.6, 0.8))] == [0, 0, 0]
    again = validations((1.0, 1.0), (0.8, 1.1), (0.6, 0.9), (0.5, 1.0))
    assert [s["overfitting"] for s in again] == [0, 1, 0, 1], "a new best begins the count anew"


def test_underfitting_is_both_losses_high_and_flat() -> None:
    assert [s["underfitting"] for s in validations(*[(2.0, 2.1)] * 4)] == [0, 1, 2, 3]
    assert [s["underfitting"] for s in validations(*[(1.0, 1.1)] * 4)] == [0, 0, 0, 0], "flat, but not high"
    falling = validations(*[(4.0 - n / 10, 4.1 - n / 10) for n in range(4)])
    assert [s["underfitting"] for s in falling] == [0, 0, 0, 0]


def predicted(health: Health, at: int, window: int, horizon: int, kept: bool, because: str, settled: bool) -> int:
    """One cycle: FULL for ``window`` steps, PREDICT for ``horizon``; returns the step after it."""
    entry, leave = at + window, at + window + horizon
    health.hear(PredictionProbed(entry - 1, 1, horizon, 1.0, 0.9, 0.1, 0.01, 5.0, 0.9, True, False, 0.0))
    health.hear(PhaseChanged(entry, Phase.FULL, Phase.PREDICT, ("confident (0.9 > 0.85)",), 1, horizon))
    ended = PredictionEnded(leave, 1, kept, horizon, because, 1.0, 0.9, 0.9, None)
    if settled:
        health.hear(PhaseChanged(leave, Phase.PREDICT, Phase.CORRECT, (because,), 1, 1))
        health.hear(ended)
        health.hear(PhaseChanged(leave, Phase.CORRECT, Phase.FULL, ("validated",), 1, 1))
    else:
        health.hear(ended)
        health.hear(PhaseChanged(leave, Phase.PREDICT, Phase.FULL, (because,), 1, 1))
    return leave


def cycles(times: int, kept: bool = True, because: str = "horizon_reached (40 of 40 steps)", **shape: Any) -> Health:
    health, at = Health(), 1
    health.hear(PhaseChanged(1, Phase.WARMUP, Phase.FULL, ("warmup complete",), 1, 2))
    for _ in range(times):
        at = predicted(health, at, shape.get("window", 2), shape.get("horizon", 40), kept, because, kept)
    return health


def test_kept_long_horizons_mean_a_learning_rate_too_low_after_twenty_attempts() -> None:
    assert signals(cycles(19), step(900))["implied_rate"] is None
    assert signals(cycles(20), step(900))["implied_rate"] == pytest.approx(21.0)
    assert signals(cycles(20, window=40), step(900))["implied_rate"] == pytest.approx(2.0)
    assert signals(cycles(20, kept=False), step(900))["implied_rate"] == 1.0


def test_an_implied_rate_that_the_record_states_is_taken_beside_the_learning_rate_of_the_steps() -> None:
    health = Health()
    signals(health, step(1, learning_rate=1e-4))
    for number in range(20):
        health.hear(PredictionEnded(number, 1, True, 40, "", 1.0, 0.9, 0.9, None, implied_rate=5e-4))
    assert signals(health, step(2))["implied_rate"] == pytest.approx(5.0)


def test_a_shadow_is_no_attempt() -> None:
    health = cycles(20)
    for number in range(20):
        health.hear(PredictionProbed(number, 1, 40, 1.0, 1.1, -0.1, 0.01, -5.0, 0.1, False, True, 0.0))
    assert signals(health, step(900))["implied_rate"] == pytest.approx(21.0)


def test_a_refused_probe_is_an_attempt_that_implies_nothing() -> None:
    health = Health()
    for number in range(21):
        health.hear(PredictionProbed(number, 1, 40, 1.0, 1.1, -0.1, 0.01, -5.0, 0.1, False, False, 0.0))
    assert signals(health, step(30))["implied_rate"] == 1.0


def test_another_learning_rate_wants_evidence_of_its_own() -> None:
    health = cycles(20)
    changed = CommandChanged(
        900, Phase.FULL, "command-1", ScaleLearningRate(2.0), CommandState.APPLIED, "ann", 1, "1e-4", "2e-4"
    )
    health.hear(changed)
    assert signals(health, step(901))["implied_rate"] is None


def test_divergences_are_counted_by_predicted_steps_and_in_a_row() -> None:
    bad = cycles(4, kept=True, because="loss_deviates (5.0 > 3)", horizon=10)
    assert signals(bad, step(900))["divergence_rate"] is None, "too few to say"
    bad = cycles(5, kept=True, because="loss_deviates (5.0 > 3)", horizon=10)
    seen = signals(bad, step(900))
    assert (seen["divergence_rate"], seen["divergences_in_a_row"]) == (10.0, 5)
    undone = cycles(5, kept=False, because="horizon_reached (10 of 10 steps)", horizon=10)
    assert signals(undone, step(900))["divergences_in_a_row"] == 5, "undone is diverged, however it ended"
    predicted(undone, 200, 2, 10, True, "horizon_reached (10 of 10 steps)", True)
    seen = signals(undone, step(901))
    assert (seen["divergence_rate"], seen["divergences_in_a_row"]) == (pytest.approx(100 * 5 / 60), 0)


def test_a_spike_is_measured_against_the_baseline_before_it() -> None:
    health = Health()
    assert signals(health, step(1, grad_norm=1.0, grad_norm_baseline=1.0))["grad_growth"] is None
    assert signals(health, step(2, grad_norm=30.0, grad_norm_baseline=15.5))["grad_growth"] == 30.0


def test_a_share_of_full_steps_is_not_counted_while_prediction_is_locked() -> None:
    health = Health()
    for number in range(1, 2000):
        health.signals(step(number), Config(), False)
    share = health.signals(step(2000), Config(), False)["full_share"]
    assert share is not None and share > 0.99
    assert health.signals(step(2001), Config(), True)["full_share"] is None


@pytest.mark.parametrize("locked", [False, True])
def test_a_confidence_that_nobody_waits_for_raises_nothing(tmp_path: Path, locked: bool) -> None:
    rig = Rig(tmp_path, steps=300, confidence_threshold=1.0).begin()
    rig.engine.locked = locked
    rig.until_step(290)
    assert any(alert.rule == "confidence" for alert in rig.of(AlertRaised)) is not locked


def test_health_signals_are_all_there_and_their_memory_is_plain_values(tmp_path: Path) -> None:
    health = cycles(20)
    assert set(signals(health, step(900, layer_grad_norms=(0.5, 2.0)))) == set(HEALTH_SIGNALS)
    torch.save(health.state_dict(), tmp_path / "health.pt")
    other = Health()
    other.load_state_dict(torch.load(tmp_path / "health.pt", weights_only=True))
    assert signals(other, step(901)) == signals(health, step(901))


# -- in a real run ----------------------------------------------------------------------------------------------------


def test_a_healthy_run_raises_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=600, alert_cooldown=0, **QUIET).begin().until_step(390)
    assert [(a.rule, a.value, a.limit) for a in rig.of(AlertRaised)] == []


def test_the_signals_behind_the_warning_signs_are_told_every_twenty_steps(tmp_path: Path) -> None:
    rig = Rig(tmp_path, **QUIET).begin().until_step(100)
    said = rig.of(HealthMeasured)
    assert len(said) == 5 and [r.step // 20 for r in said] == [1, 2, 3, 4, 5], "at the first measured step of each 20"
    assert "steps_without_gain" in said[0].values and "implied_rate" not in said[0].values, "no evidence, no value"
    assert set().union(*(r.values for r in said)) <= set(HEALTH_SIGNALS)


def frozen(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 1e-9)


def test_a_run_that_does_not_move_is_a_plateau_and_says_what_its_remedy_would_send(tmp_path: Path) -> None:
    rig = Rig(tmp_path, optimizer=frozen, plateau_steps=60, **QUIET).begin()
    rig.until(lambda: any(a.rule == "plateau" for a in rig.of(AlertRaised)))
    alert = next(a for a in rig.of(AlertRaised) if a.rule == "plateau")
    assert (alert.value, alert.limit, alert.remedy) == (61, 60, "loss_plateau")
    assert alert.commands == (ScaleLearningRate(2.0),)
    assert "learning rate too low" in alert.causes and "warmup" in alert.advice
    rig.tell(ApplyRemedy("loss_plateau"))
    rig.until_step(rig.engine.step_count + 5)
    assert [r.rule for r in rig.of(AlertResolved)] == ["plateau"], "counted anew under the new learning rate"


def test_a_model_that_died_goes_back_to_before_it_at_a_lower_rate(tmp_path: Path) -> None:
    """Its loss stands still like that of a plateau, whose remedy doubles the rate."""
    sink = {"remedies": "auto", "checkpoint_every": 10, "plateau_steps": 100}
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    rig = Rig(tmp_path, policy="adaptive", steps=400, model=model, **QUIET | sink).begin().until_step(30)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.bias.fill_(-100.0)
    rig.until(lambda: bool(rig.of(AttemptStarted)))
    assert [(a.rule, a.remedy) for a in rig.of(AlertRaised)][-1] == ("dead layers", "dead_model")
    assert not any(r.good for r in rig.of(CheckpointSaved) if r.step >= 60), "a dead model is nothing to go back to"
    assert rig.of(AttemptStarted)[0].step <= 50 and rig.engine.schedule.scale == pytest.approx(0.1)


def test_overfitting_is_told_from_the_validations_of_a_run(tmp_path: Path) -> None:
    rising = iter(range(1, 1000))
    rig = Rig(tmp_path, validate=lambda: (float(next(rising)), None), validate_every=10, **QUIET).begin().until_step(60)
    alerts = {a.rule: a for a in rig.of(AlertRaised)}
    assert alerts["overfitting"].commands == (SetWeightDecay(0.1),)
    assert alerts["overfitting"].value == 3
    assert alerts["validation gap"].remedy == "early_stopping"
    assert "dropout_rate" in alerts["overfitting"].advice


def test_checklists_are_recorded_after_one_step_at_the_end_of_warmup_and_every_so_often(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checklist_every=20, warmup_steps=10, **QUIET).begin().until_step(70)
    lists = rig.of(Checklist)
    assert [c.name for c in lists][:1] == ["before training"] and lists[0].step == 1
    assert [c.step for c in lists if c.name == "warmup"] == [rig.of(PhaseChanged)[0].step - 1]
    during = [c for c in lists if c.name == "during training"]
    assert [c.step // 20 for c in during] == [1, 2, 3]
    assert [item.item for item in during[0].items] == [
        "gradient norm / baseline stable",
        "no layer's gradient norm explodes",
        "gradient variance / baseline^2 not increasing",
        "gradient/parameter ratio",
    ]
    first = {item.item: item for item in lists[0].items}
    norm = rig.of(StepRecord)[0].grad_norm
    assert norm is not None and first["gradient norm after 1 step"].detail.startswith(f"{norm:.3g}, healthy 0 to 10")
    assert all(item.met is True for item in lists[0].items)


def test_an_item_that_is_not_met_says_so_with_its_numbers(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={0: float("nan")}).begin()
    rig.step()
    items = {i.item: i for i in rig.of(Checklist)[0].items}
    assert items["no NaN or Inf in gradients"].met is False
    assert items["gradient norm after 1 step"].met is False and "nan" in items["gradient norm after 1 step"].detail


# -- remedies ---------------------------------------------------------------------------------------------------------


def settings_of(rig: Rig) -> dict[str, float]:
    e = rig.engine
    return {
        "lr": round(rig.optimizer.param_groups[0]["lr"] / 3e-3, 9),
        "clip": e.config.optimizer.gradient_clip_norm,
        "wd": rig.optimizer.param_groups[0]["weight_decay"],
        "full": e.config.hybrid_trainer_config.full_steps,
        "predict": e.config.hybrid_trainer_config.max_predict_steps,
        "deviation": e.config.hybrid_trainer_config.divergence_threshold,
        "patience": e.config.training.early_stopping_patience,
        "attempt": e.attempt,
    }


CHANGES: dict[str, dict[str, float]] = {
    "nan_loss": {"lr": 0.1, "clip": 1.0, "attempt": 1},
    "extreme_gradient": {"lr": 0.5, "clip": 1.0, "attempt": 1},
    "dead_model": {"lr": 0.1, "clip": 1.0, "attempt": 1},
    "gradient_explosion": {"lr": 0.5, "clip": 1.0},
    "gradient_spike": {"lr": 0.5, "deviation": 2.0},
    "lower_learning_rate": {"lr": 0.5},
    "raise_learning_rate": {"lr": 2.0},
    "divergence_loop": {"full": 8},
    "frequent_divergence": {"lr": 0.5, "predict": 16, "deviation": 6.0},
    "low_confidence": {"full": 8},
    "loss_plateau": {"lr": 2.0},
    "oscillation": {"lr": 0.3, "full": 8, "clip": 1.0},
    "overfitting": {"wd": 0.1},
    "early_stopping": {"patience": 5},
    "underfitting": {"lr": 3.0, "wd": 0.0001},
}


@pytest.mark.parametrize("remedy", sorted(REMEDIES))
def test_a_remedy_changes_what_it_says_and_nothing_else(tmp_path: Path, remedy: str) -> None:
    rig = Rig(tmp_path, divergence_threshold=3.0, max_predict_steps=40, min_predict_steps=4).begin().until_step(8)
    before = settings_of(rig)
    ended = rig.tell(ApplyRemedy(remedy))
    assert ended.state is CommandState.APPLIED and ended.before and ended.after
    assert settings_of(rig) == pytest.approx(before | CHANGES[remedy])
    rig.step()
    assert rig.of(StepRecord)[-1].learning_rate == pytest.approx(3e-3 * CHANGES[remedy].get("lr", 1.0))


def test_a_remedy_that_would_change_nothing_is_refused_and_a_tighter_clip_stays(tmp_path: Path) -> None:
    rig = Rig(tmp_path, full_steps=10_000_000, early_stopping_patience=3, gradient_clip_norm=0.5).begin()
    for remedy in ("divergence_loop", "early_stopping"):
        ended = rig.tell(ApplyRemedy(remedy))
        assert (ended.state, ended.refusal) == (CommandState.REJECTED, Refusal.PRECONDITION)
        assert ended.detail == f"the remedy {remedy} would change nothing: what it sets is at its bound already"
    rig.tell(ApplyRemedy("gradient_explosion"))
    assert rig.engine.config.optimizer.gradient_clip_norm == 0.5


class NoDecay(torch.optim.SGD):
    """An optimizer that knows no weight decay."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, 3e-3)
        for group in self.param_groups:
            group.pop("weight_decay")


def test_a_remedy_refused_half_way_leaves_the_learning_rate_as_it_was(tmp_path: Path) -> None:
    rig = Rig(tmp_path, optimizer=NoDecay).begin()
    ended = rig.tell(ApplyRemedy("underfitting"))
    why = "set-weight-decay: this optimizer has no weight decay (all or nothing: nothing of it was applied)"
    assert (ended.state, ended.refusal, ended.detail) == (CommandState.REJECTED, Refusal.PRECONDITION, why)
    assert rig.optimizer.param_groups[0]["lr"] == 3e-3
    assert rig.engine.schedule.scale == 1.0 and rig.engine.state_rev == 0


def stuck(folder: Path, **settings: Any) -> Rig:
    """A run whose gradient norm is always past its limit, and prediction out of the way."""
    rig = Rig(folder, steps=400, **QUIET | {"gradient_norm_high": 1e-6} | settings).begin()
    rig.tell(LockPrediction(True))
    return rig


def by_itself(rig: Rig) -> list[CommandChanged]:
    return [c for c in rig.of(CommandChanged) if c.actor.startswith("remedy:") and c.state is CommandState.APPLIED]


def test_a_suggested_remedy_is_not_applied(tmp_path: Path) -> None:
    rig = stuck(tmp_path).until_step(60)
    assert any(a.rule == "gradient norm" for a in rig.of(AlertRaised))
    assert by_itself(rig) == [] and settings_of(rig)["lr"] == 1.0


def test_auto_applies_the_remedy_of_an_alert_once_as_commands_of_its_own(tmp_path: Path) -> None:
    rig = stuck(tmp_path, remedies="auto").until_step(120)
    alert = next(a for a in rig.of(AlertRaised) if a.rule == "gradient norm")
    done = by_itself(rig)
    assert {c.actor for c in done} == {"remedy:gradient norm"}
    assert tuple(c.command for c in done) == alert.commands == (SetGradientClip(1.0), ScaleLearningRate(0.5))
    assert [(c.step, c.before, c.after) for c in done] == [(3, "0", "1"), (3, "0.003", "0.0015")]
    assert [c.state_rev for c in done] == [2, 3] and all(c.reason == "remedy gradient_explosion" for c in done)
    assert rig.of(StepRecord)[-1].learning_rate == pytest.approx(1.5e-3)


def test_an_automatic_remedy_of_which_one_part_is_refused_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    rig = stuck(tmp_path, remedies="auto", optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0))
    before, rev = settings_of(rig), rig.engine.state_rev
    rig.until_step(40)
    alert = next(a for a in rig.of(AlertRaised) if a.rule == "gradient norm")
    assert alert.commands == (SetGradientClip(1.0), ScaleLearningRate(0.5))
    parts = [c for c in rig.of(CommandChanged) if c.actor == "remedy:gradient norm"]
    assert [(type(c.command), c.state) for c in parts] == [
        (SetGradientClip, CommandState.APPLYING),
        (ScaleLearningRate, CommandState.APPLYING),
        (SetGradientClip, CommandState.REJECTED),
        (ScaleLearningRate, CommandState.REJECTED),
    ]
    assert all(c.detail.startswith("scale-learning-rate: a learning rate of 0 is outside 0 to 100") for c in parts[2:])
    assert all("all or nothing" in c.detail for c in parts[2:])
    assert settings_of(rig) == before and rig.engine.state_rev == rev
    assert rig.session.remedying.state_dict()["applied"] == 0, "what was not applied does not count"


def flapping(rig: Rig, times: int) -> Rig:
    """Open and resolve the same alert over and over, by moving its limit."""
    for _ in range(times):
        rig.tell(SetThreshold("gradient_norm_high", 1e-6))
        rig.until_step(rig.engine.step_count + 4)
        rig.tell(SetThreshold("gradient_norm_high", 90.0))
        rig.until_step(rig.engine.step_count + 12)
    return rig


def test_automatic_remedies_wait_for_their_cooldown_and_end_at_their_limit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"remedies": "auto", "alert_cooldown": 0, "gradient_norm_high": 90.0}
    waiting = flapping(stuck(tmp_path / "a", remedy_cooldown=40, max_remedies=100, **settings), 6)
    halvings = [c.step for c in by_itself(waiting) if isinstance(c.command, ScaleLearningRate)]
    assert len(halvings) > 1 and all(b - a >= 40 for a, b in pairwise(halvings))
    assert len({a.alert_id for a in waiting.of(AlertRaised)}) > len(halvings)
    limited = flapping(stuck(tmp_path / "b", remedy_cooldown=0, max_remedies=2, **settings), 5)
    assert sum(isinstance(c.command, ScaleLearningRate) for c in by_itself(limited)) == 2
    assert settings_of(limited)["lr"] == 0.25
    notes = [n.text for n in limited.of(Annotated)]
    assert notes and "max_remedies" in notes[0]


def test_a_critical_alert_does_not_wait_because_a_lesser_one_had_a_remedy(tmp_path: Path) -> None:
    rig = stuck(tmp_path, remedies="auto", remedy_cooldown=100).until_step(6)
    assert {c.actor for c in by_itself(rig)} == {"remedy:gradient norm"} and settings_of(rig)["attempt"] == 0
    rig.tell(SaveCheckpoint())
    rig.tell(SetThreshold("gradient_norm_high", 1e-7))
    rig.tell(SetThreshold("gradient_norm_extreme_high", 1e-6))
    rig.until(lambda: bool(rig.of(AttemptStarted)), 6)
    assert settings_of(rig) | {"wd": 0, "full": 0, "predict": 0, "deviation": 0, "patience": 0} == {
        "lr": 0.25, "clip": 1.0, "attempt": 1, "wd": 0, "full": 0, "predict": 0, "deviation": 0, "patience": 0,
    }  # fmt: skip
    rig.until(lambda: rig.engine.batches >= 60)
    assert len(rig.of(AttemptStarted)) == 1, "once, and the next critical one waits"


def test_an_automatic_remedy_does_not_come_on_top_of_the_automatic_rollback(tmp_path: Path) -> None:
    rig = Rig(tmp_path, remedies="auto", scales={8: float("nan")}, **QUIET).begin().until_step(8)
    rig.until_step(rig.engine.step_count + 1)
    rig.until(lambda: bool(rig.of(AttemptStarted)))
    rig.until_step(30)
    assert any(a.rule == "not finite" for a in rig.of(AlertRaised))
    assert len(rig.of(AttemptStarted)) == 1 and by_itself(rig) == []
    assert settings_of(rig)["lr"] == 0.1


def test_an_automatic_rollback_remedy_goes_back_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=400, remedies="auto", **QUIET).begin()
    rig.tell(LockPrediction(True))
    rig.until_step(20)
    rig.tell(SaveCheckpoint())
    rig.tell(SetThreshold("gradient_norm_high", 1e-7))
    rig.tell(SetThreshold("gradient_norm_extreme_high", 1e-6))
    rig.until(lambda: rig.engine.batches >= 30)
    assert [(a.step, a.checkpoint) for a in rig.of(AttemptStarted)] == [(20, "step-000020")]
    assert {c.actor for c in by_itself(rig)} == {"remedy:gradient norm"}


def resumed(folder: Path, make: Callable[[Path], Rig], at: int) -> tuple[Rig, Rig]:
    """A run through, and one that was saved at ``at``, read again by a new process, and went on."""
    through = make(folder)
    through.until_step(at)
    through.session.save_checkpoint("for the test")
    again = make(folder)
    again.session.resume(0, at, "resumed")
    return through, again


def test_a_resumed_run_raises_and_remedies_as_the_uninterrupted_one(tmp_path: Path) -> None:
    def make(folder: Path) -> Rig:
        limits = QUIET | {"gradient_norm_high": 90.0, "plateau_steps": 25}
        return Rig(folder, remedies="auto", remedy_cooldown=10, optimizer=frozen, checklist_every=15, **limits)

    through, again = resumed(tmp_path, lambda folder: make(folder), 20)
    said, told_again = len(through.records), len(again.records)
    through.until_step(120)
    again.until_step(120)
    kinds = (AlertRaised, AlertResolved, Checklist, HealthMeasured, PhaseChanged)

    def heard(rig: Rig, start: int) -> list[Record]:
        return [
            msgspec.structs.replace(r, alert_id="") if hasattr(r, "alert_id") else r
            for r, _ in rig.records[start:]
            if isinstance(r, kinds)
        ]

    assert heard(through, said) == heard(again, told_again)
    assert any(isinstance(r, AlertRaised) for r in heard(through, said))
    assert [c.command for c in by_itself(through)] == [c.command for c in by_itself(again)] != []
    assert torch.equal(through.weights(), again.weights())
    assert same(through.engine.recorder.health.state_dict(), again.engine.recorder.health.state_dict())
    assert through.session.remedying.state_dict()["applied"] == again.session.remedying.state_dict()["applied"] > 0


def test_a_rollback_does_not_make_automatic_remedies_wait_for_the_steps_it_took_back(tmp_path: Path) -> None:
    rig = stuck(tmp_path, remedies="auto", remedy_cooldown=20, alert_cooldown=0, gradient_norm_high=90.0)
    rig.until_step(120)
    flapping(rig, 1)
    assert len([c for c in by_itself(rig) if isinstance(c.command, ScaleLearningRate)]) == 1
    rig.tell(Rollback("step-000000"))
    rig.until_step(1)
    flapping(rig, 3)
    halvings = [c.step for c in by_itself(rig) if isinstance(c.command, ScaleLearningRate)]
    assert len(halvings) > 1 and 20 <= halvings[1] < 60, "not at step 140 and later"
