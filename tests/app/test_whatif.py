"""The replay of recorded steps under another value: what it counts, what it says it cannot know."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.figures import whatif as figure
from app.store import Store
from app.views.whatif import LAST_STEPS, WhatIf, due, what_if
from tests.app.rows import Script
from tests.app.test_own_loops import own_loop
from trainer_core.spec.commands import CommandState, LockPrediction
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed
from trainer_core.spec.severity import Severity
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import decide

CONFIDENCES = (0.95, 0.9, 0.8, 0.6)


def probe(script: Script, confidence: float, horizon: int = 20, shadow: bool = False, paying: bool = False) -> None:
    script.say(
        PredictionProbed(
            script.step, script.cycle, horizon, 1.0, 0.9, 0.1, 0.01, 10.0, confidence, True, shadow, 0.01, paying=paying
        )
    )  # fmt: skip


def looked(confidences: tuple[float, ...] = CONFIDENCES) -> Script:
    """A cycle for each confidence: ten full steps, a look, and the prediction where 0.85 trusts it."""
    script = Script().start()
    for confidence in confidences:
        script.enter(Phase.FULL, 10)
        script.steps(10, budget=10, full_needed=10)
        probe(script, confidence)
        if confidence > 0.85:
            script.enter(Phase.PREDICT, 20)
            script.stretch(20)
            script.enter(Phase.CORRECT, 1)
            script.steps(1, budget=1)
    script.enter(Phase.FULL, 10)
    script.steps(5, full_needed=10)
    return script


def asked(script: Script, name: str, value: float, config: Config | None = None) -> WhatIf:
    store = Store()
    store.append(script.rows)
    found = what_if(store.snapshot(), config or Config(), name, value)
    assert isinstance(found, WhatIf), found
    return found


def test_the_value_in_force_replays_what_did_happen() -> None:
    found = asked(looked(), "confidence_threshold", 0.85)
    assert found.same and found.looks == 4
    assert found.now.begun == found.made == 2
    assert "None of the last 47 measured steps" in found.headline


@pytest.mark.parametrize(("value", "begun"), [(0.97, 0), (0.92, 1), (0.85, 2), (0.7, 3), (0.5, 4)])
def test_a_threshold_lets_in_what_is_above_it(value: float, begun: int) -> None:
    found = asked(looked(), "confidence_threshold", value)
    assert (found.then.begun, found.then.predicted) == (begun, 20 * begun)
    assert dict(found.then.blocked).get("confident", 0) == 4 - begun
    more = any("never made" in sentence for sentence in found.unknown)
    assert more == (begun > 2)


def test_a_look_while_predictions_pay_is_replayed_with_the_lower_threshold_it_had() -> None:
    script = Script().start()
    script.enter(Phase.FULL, 10)
    script.steps(10, budget=10, full_needed=10)
    probe(script, 0.6, paying=True)
    assert asked(script, "confidence_threshold", 0.85).now.begun == 1
    script.enter(Phase.PREDICT, 20)
    script.steps(2, budget=20, horizon=20, confidence=0.6)
    assert asked(script, "confidence_threshold", 0.85).now.ended == (), "it goes on with what was enough to begin it"
    assert asked(script, "confidence_threshold", 0.95).then.begun == 0


def test_shadows_are_no_looks_and_steps_without_a_look_begin_nothing() -> None:
    script = looked(())
    probe(script, 0.99, shadow=True)
    found = asked(script, "confidence_threshold", 0.0)
    assert found.looks == found.then.begun == 0
    assert "no proposal was looked at" in found.headline


def test_a_shorter_horizon_cuts_and_says_that_lengths_are_the_recorded_ones() -> None:
    found = asked(looked(), "max_predict_steps", 8)
    assert (found.now.predicted, found.then.predicted) == (40, 16)
    assert any("recorded ones, cut" in sentence for sentence in found.unknown)


def test_a_divergence_threshold_ends_predictions_that_were_measured() -> None:
    script = looked(())
    script.enter(Phase.PREDICT, 5)
    script.steps(5, loss_deviation=2.5, horizon=20, confidence=0.9)
    found = asked(script, "divergence_threshold", 2.0)
    assert (found.now.ended, found.then.ended) == ((), (("loss deviation", 1),))
    assert found.rungs[0].signal == "loss_deviation" and found.rungs[0].then == 5


def test_a_limit_counts_the_steps_beyond_it() -> None:
    found = asked(Script().start().steps(30, grad_norm=4.0), "gradient_norm_high", 3.0)
    (rung,) = found.rungs
    assert (rung.signal, rung.severity, rung.now, rung.then) == ("grad_norm", Severity.WARNING, 0, 30)
    assert "what follows below" in found.headline


def test_an_extreme_gradient_would_have_rolled_back() -> None:
    script = Script().start()
    script.enter(Phase.FULL)
    script.steps(3, grad_norm=50.0, grad_norm_baseline=1.0)
    found = asked(script, "gradient_norm_extreme_high", 20.0)
    assert (found.now.rollbacks, found.then.rollbacks) == (0, 3)


def test_a_lock_closes_the_looks_after_it_and_none_before() -> None:
    script = looked()
    assert asked(script, "confidence_threshold", 0.5).then.begun == 4
    script.command(LockPrediction(True), CommandState.APPLIED)
    script.steps(5, full_needed=5)
    probe(script, 0.99)
    found = asked(script, "confidence_threshold", 0.5)
    assert found.then.begun == 4 and dict(found.then.blocked)["unlocked"] == 1
    script.command(LockPrediction(False), CommandState.APPLIED, "c0000002")
    script.steps(1, full_needed=1)
    probe(script, 0.99)
    assert asked(script, "confidence_threshold", 0.5).then.begun == 5


def test_a_forbidden_value_and_an_empty_run_are_sentences() -> None:
    store = Store()
    store.append(Script().start().rows)
    assert what_if(store.snapshot(), Config(), "confidence_threshold", 0.5) == "No step has been measured yet."
    assert "must be" in str(what_if(store.snapshot(), Config(), "confidence_threshold", 1.5))
    assert "must not be above" in str(what_if(store.snapshot(), Config(), "gradient_norm_low", 50.0))


def test_only_the_newest_steps_of_the_present_attempt_are_replayed() -> None:
    script = Script().start().steps(LAST_STEPS + 100)
    assert asked(script, "confidence_threshold", 0.5).steps == LAST_STEPS
    script.roll_back(500)
    script.steps(50)
    found = asked(script, "confidence_threshold", 0.5)
    assert (found.steps, found.first_step, found.last_step) == (50, 501, 550)


floats = st.none() | st.floats(0, 200)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(Phase),
    st.builds(
        Signals, step=st.integers(0, 500), steps_in_phase=st.integers(0, 50), full_needed=st.integers(0, 50),
        loss_change=floats, confidence=st.none() | st.floats(0, 1), since_divergence=st.none() | st.integers(0, 20),
        locked=st.booleans(), horizon=st.integers(0, 50), finite=st.booleans(), loss_deviation=floats,
        update_ratio=floats, prediction_error=floats, sign_changes=st.none() | st.integers(0, 10), grad_norm=floats,
        grad_norm_baseline=floats,
    ),
)  # fmt: skip
def test_the_replay_decides_as_the_trainer_does(phase: Phase, signals: Signals) -> None:
    decision = decide(phase, signals, Config())
    assert due(phase, signals, Config()) == (decision.transition if decision is not None else None)


def test_the_table_shows_both_values_and_what_cannot_be_known() -> None:
    html = figure.html(asked(looked(), "confidence_threshold", 0.5), "light")
    assert "0.85 (in force)" in html and "4 predictions would have begun instead of 2" in html
    assert "What this cannot know" in html and "they have no outcome" in html
    assert "the proposal was not trusted" in html


def test_a_setting_of_alerts_is_not_said_to_change_nothing() -> None:
    found = asked(looked(), "plateau_steps", 5)
    assert found.headline.startswith("No transition would have differed. Which alerts there would have been")
    assert not asked(looked(), "gradient_variance_high", 1.0).about_alerts


def test_of_a_loop_without_phases_only_limits_are_counted() -> None:
    script = own_loop(0)
    script.steps(30, grad_norm=500.0)
    found = asked(script, "gradient_norm_extreme_high", 1000.0)
    assert found.headline == "Steps would have stood at another limit, as below."
    assert (found.now.begun, found.now.blocked, found.now.rollbacks) == (0, (), 0)
    shown = figure.html(found, "light")
    assert "grad_norm at critical" in shown
    assert not [word for word in ("predict", "look", "rollback", "cannot know") if word in shown]
    assert asked(script, "gradient_norm_extreme_high", 200.0).headline == (
        "None of the last 30 measured steps would have stood at another limit."
    )
