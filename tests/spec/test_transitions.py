"""Claims about the transition table: the document's rows, the first wins, strict comparisons, reasons in numbers."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spec.table import LEGAL, RULES, C, F, P, W, configs, signals
from trainer_core.spec.config import Config
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import TRANSITIONS, Decision, Effect, decide, explain, refusal, row_for

DEFAULT = Config()
PREDICTING = Signals(step=200, steps_in_phase=3, horizon=20, confidence=0.9, update_ratio=1.0)
"""A prediction in which everything is as it should be."""


def cause(phase: Phase, s: Signals, c: Config = DEFAULT) -> str | None:
    """The cause of the transition that is due."""
    decision = decide(phase, s, c)
    return decision.transition.cause if decision else None


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(Phase), signals, configs)
def test_a_row_is_taken_exactly_when_it_holds_and_no_earlier_one_does(phase: Phase, s: Signals, c: Config) -> None:
    due = [(target, why) for source, target, why, holds in RULES if source is phase and holds(s, c)]
    decision = decide(phase, s, c)
    taken = (decision.transition.target, decision.transition.cause) if decision else None
    assert taken == (due[0] if due else None)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(Phase), signals, configs)
def test_every_decision_is_legal_and_says_which_guards_held(phase: Phase, s: Signals, c: Config) -> None:
    decision = decide(phase, s, c)
    if decision is None:
        return
    row = decision.transition
    assert (row.source, row.target) in LEGAL and row.source is phase
    assert len(decision.because) == len(row.guards)
    assert all(line.endswith(")") and " (" in line for line in decision.because)


def test_the_table_has_the_rows_of_the_document_and_no_others() -> None:
    written = sorted((s, t, why) for s, t, why, _ in RULES)
    assert sorted((r.source, r.target, r.cause) for r in TRANSITIONS) == written
    assert {(r.source, r.target) for r in TRANSITIONS} == LEGAL


@pytest.mark.parametrize(
    ("field", "limit", "outcome", "sign"),
    [
        ("loss_deviation", 3.0, "loss deviation", 1),
        ("update_ratio", 10.0, "update explosion", 1),
        ("update_ratio", 0.01, "update vanishing", -1),
        ("prediction_error", 0.20, "prediction error", 1),
        ("confidence", 0.85, "confidence drop", -1),
    ],
)
def test_a_divergence_trigger_fires_strictly_beyond_its_threshold(
    field: str, limit: float, outcome: str, sign: int
) -> None:
    at = msgspec.structs.replace(PREDICTING, **{field: limit})
    beyond = msgspec.structs.replace(PREDICTING, **{field: math.nextafter(limit, sign * math.inf)})
    assert cause(P, at) is None
    assert cause(P, beyond) == outcome


@pytest.mark.parametrize(
    "field", ["loss_deviation", "update_ratio", "prediction_error", "confidence", "sign_changes", "grad_norm"]
)
@pytest.mark.parametrize("value", [None, math.nan])
def test_what_was_not_measured_and_what_is_no_number_triggers_nothing(field: str, value: float | None) -> None:
    if field == "sign_changes" and value is not None:
        value = None
    assert cause(P, msgspec.structs.replace(PREDICTING, **{field: value})) is None
    full = Signals(step=200, steps_in_phase=50, full_needed=20)
    assert cause(F, msgspec.structs.replace(full, **{field: value})) is None


def test_full_goes_to_predict_only_above_the_confidence_threshold() -> None:
    ready = Signals(step=200, steps_in_phase=20, full_needed=20, confidence=0.85)
    assert cause(F, ready) is None
    assert cause(F, msgspec.structs.replace(ready, confidence=0.8501)) == "confident"
    assert cause(F, msgspec.structs.replace(ready, confidence=0.9, steps_in_phase=19)) is None
    assert cause(F, msgspec.structs.replace(ready, confidence=0.9, locked=True)) is None
    assert cause(F, msgspec.structs.replace(ready, confidence=0.9, since_divergence=9)) is None
    assert cause(F, msgspec.structs.replace(ready, confidence=0.9, since_divergence=10)) == "confident"


def test_predictions_that_pay_need_not_be_sure_one_by_one() -> None:
    unsure = Signals(step=200, steps_in_phase=20, full_needed=20, confidence=0.5)
    assert cause(F, unsure) is None
    assert cause(F, msgspec.structs.replace(unsure, paying=True)) == "confident"
    assert cause(F, msgspec.structs.replace(unsure, paying=True, confidence=0.48)) is None
    begun = msgspec.structs.replace(PREDICTING, paying=True, confidence=0.5)
    assert cause(P, begun) is None, "what was enough to begin one is enough to go on with it"
    assert cause(P, msgspec.structs.replace(begun, confidence=0.48)) == "confidence drop"
    never = resolve({"confidence_threshold": 1.0}).config
    decision = decide(F, msgspec.structs.replace(unsure, paying=True, confidence=0.999), never)
    assert decision is None, "a threshold of 1 keeps every prediction away"


def test_warmup_gives_up_waiting_at_five_times_its_steps_and_says_so() -> None:
    restless = Signals(step=499, loss_change=3.0)
    assert cause(W, restless) is None
    assert cause(W, msgspec.structs.replace(restless, step=500)) == "loss never settled"
    assert cause(W, Signals(step=100, loss_change=0.1)) == "warmup complete"
    assert cause(W, Signals(step=100, loss_change=0.25)) is None


def test_four_sign_changes_are_an_oscillation_and_three_are_not() -> None:
    assert cause(P, msgspec.structs.replace(PREDICTING, sign_changes=3)) is None
    assert cause(P, msgspec.structs.replace(PREDICTING, sign_changes=4)) == "oscillation"


@pytest.mark.parametrize("phase", Phase)
def test_nan_leads_to_full_from_everywhere_with_undo_in_predict_and_rollback_elsewhere(phase: Phase) -> None:
    decision = decide(phase, Signals(finite=False, horizon=9), DEFAULT)
    assert decision is not None
    assert decision.transition.target is F
    assert decision.transition.effect is (Effect.UNDO if phase is P else Effect.ROLLBACK)
    assert decision.transition.divergence


def test_the_nan_check_can_be_switched_off() -> None:
    unchecked = resolve({"divergence_config": {"nan_check_enabled": False}}).config
    assert decide(F, Signals(finite=False, full_needed=9), unchecked) is None


def test_an_extreme_gradient_is_critical_and_far_above_its_own_baseline() -> None:
    spike = Signals(full_needed=9, grad_norm=150.0, grad_norm_baseline=2.0)
    assert cause(F, spike) == "extreme gradient"
    assert cause(F, msgspec.structs.replace(spike, grad_norm_baseline=20.0)) is None
    assert cause(F, msgspec.structs.replace(spike, grad_norm=100.0)) is None
    assert cause(P, msgspec.structs.replace(PREDICTING, grad_norm=1e9)) is None


def test_reasons_can_be_checked_by_eye() -> None:
    decision = decide(P, msgspec.structs.replace(PREDICTING, confidence=0.849), DEFAULT)
    assert isinstance(decision, Decision)
    assert decision.because == ("confidence_dropped (0.8490 < 0.85)",)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(Phase), signals, configs)
def test_the_checklist_agrees_with_the_decision(phase: Phase, s: Signals, c: Config) -> None:
    lines = explain(phase, s, c)
    rows = [r for r in TRANSITIONS if r.source is phase and r.cause != "operator"]
    assert len(lines) == sum(len(r.guards) for r in rows)
    start, due = 0, False
    for row in rows:
        part = lines[start : start + len(row.guards)]
        assert all(line.to_phase is row.target and line.detail for line in part)
        due, start = due or all(line.holds for line in part), start + len(row.guards)
    unasked = msgspec.structs.replace(s, asked=None)
    assert due == (decide(phase, unasked, c) is not None)


def test_an_operator_is_refused_with_the_reason() -> None:
    locked = Signals(locked=True, since_divergence=2)
    assert refusal(F, P, locked, DEFAULT) == (
        "unlocked (locked by an operator); calm (last divergence 2 steps ago, needs 10)"
    )
    assert refusal(W, P, Signals(), DEFAULT) == "there is no way from WARMUP to PREDICT"
    assert refusal(P, F, Signals(), DEFAULT) is None
    with pytest.raises(KeyError):
        row_for(W, C)


def test_only_predict_has_no_backward_pass_and_is_moved_by_the_predictor() -> None:
    assert [p for p in Phase if not TRAITS[p].backward] == [P]
    assert [p for p in Phase if TRAITS[p].mover == "predictor"] == [P]
    assert [p.letter for p in Phase] == ["W", "F", "P", "C"]
    assert C in TRAITS
