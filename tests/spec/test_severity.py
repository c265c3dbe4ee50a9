"""Claims about severities: the ladders are the document's Critical Thresholds, strict at every rung, and ordered."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_core.spec.alerts import NOT_FINITE, RULES
from trainer_core.spec.commands import Rollback
from trainer_core.spec.config import Config, with_live_setting
from trainer_core.spec.ladders import HEALTH_SIGNALS, SIGNALS, ladders
from trainer_core.spec.records import StepRecord
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Ladder, Severity

HEALTHY, CAUTION, WARNING, CRITICAL = Severity
LADDERS = ladders(Config())


@pytest.mark.parametrize(
    ("signal", "value", "severity"),
    [
        ("confidence", 0.86, HEALTHY),
        ("confidence", 0.85, HEALTHY),
        ("confidence", 0.84, WARNING),
        ("confidence", 0.70, WARNING),
        ("confidence", 0.69, CRITICAL),
        ("loss_deviation", 2.0, HEALTHY),
        ("loss_deviation", 2.1, WARNING),
        ("loss_deviation", 3.0, WARNING),
        ("loss_deviation", 3.1, CRITICAL),
        ("loss_deviation", -9.0, HEALTHY),
        ("grad_norm", 0.1, HEALTHY),
        ("grad_norm", 10.0, HEALTHY),
        ("grad_norm", 10.1, WARNING),
        ("grad_norm", 100.0, WARNING),
        ("grad_norm", 100.1, CRITICAL),
        ("grad_norm", 0.09, WARNING),
        ("grad_norm", 0.01, WARNING),
        ("grad_norm", 0.009, CRITICAL),
        ("prediction_error", 0.10, HEALTHY),
        ("prediction_error", 0.11, WARNING),
        ("prediction_error", 0.20, WARNING),
        ("prediction_error", 0.21, CRITICAL),
    ],
)
def test_a_value_has_the_severity_of_the_critical_thresholds_table(
    signal: str, value: float, severity: Severity
) -> None:
    assert LADDERS[signal].classify(value) is severity


@pytest.mark.parametrize("signal", SIGNALS)
def test_no_ladder_calls_nan_healthy(signal: str) -> None:
    assert LADDERS[signal].classify(math.nan) is CRITICAL


def test_ladders_follow_the_live_settings() -> None:
    config = with_live_setting(Config(), "confidence_threshold", 0.6)
    assert ladders(config)["confidence"].classify(0.61) is HEALTHY
    assert ladders(config)["confidence"].classify(0.59) is CRITICAL
    config = with_live_setting(Config(), "divergence_threshold", 2.5)
    assert ladders(config)["loss_deviation"].classify(2.6) is CRITICAL


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3, unique=True), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_value_further_out_is_never_less_severe(rungs: list[float], a: float, b: float) -> None:
    low, middle, high = sorted(rungs)
    ladder = Ladder(caution_above=low, warning_above=middle, critical_above=high)
    assert ladder.classify(min(a, b)) <= ladder.classify(max(a, b))
    assert ladder.classify(math.nextafter(high, math.inf)) is CRITICAL


def test_the_limit_that_was_passed_is_the_one_that_is_named() -> None:
    ladder = LADDERS["grad_norm"]
    assert ladder.limit(WARNING, 50.0) == 10.0
    assert ladder.limit(CRITICAL, 0.001) == 0.01
    assert ladder.limit(CRITICAL, 50.0) is None


def test_every_alert_rule_watches_a_field_that_exists_and_suggests_a_remedy_that_exists() -> None:
    for rule in (*RULES, NOT_FINITE):
        assert rule.signal in StepRecord.__struct_fields__ or rule.signal in HEALTH_SIGNALS
        assert {rule.remedy, rule.critical_remedy} <= {None, *REMEDIES} and (rule.remedy or rule.advice)
        assert rule is NOT_FINITE or rule.signal in LADDERS


def test_remedies_are_the_documents_emergency_actions() -> None:
    config = Config()
    said = {name: [repr(c) for c in remedy(config)] for name, remedy in REMEDIES.items()}
    assert said["nan_loss"] == [
        repr(Rollback()),
        "ScaleLearningRate(factor=0.1)",
        "SetGradientClip(max_norm=1.0)",
    ]
    assert said["gradient_explosion"] == ["SetGradientClip(max_norm=1.0)", "ScaleLearningRate(factor=0.5)"]
    assert said["divergence_loop"] == ["SetThreshold(name='full_steps', value=80.0)"]
    assert said["overfitting"] == ["SetWeightDecay(value=0.1)"]
