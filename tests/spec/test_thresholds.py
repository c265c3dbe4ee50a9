"""Claims about every threshold at its own bounds: strict comparisons in the transition table and in the ladders."""

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_core.spec.config import SETTINGS, Config, with_live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity
from trainer_core.spec.signals import Signals
from trainer_core.spec.transitions import decide

F, P, C = Phase.FULL, Phase.PREDICT, Phase.CORRECT

PREDICTING: dict[str, Any] = {"step": 500, "steps_in_phase": 3, "horizon": 10**9, "confidence": 2.0}
"""A prediction that nothing ends: every other threshold is far."""

TABLE: list[tuple[str, Phase, str, int, str, dict[str, Any]]] = [
    ("divergence_threshold", P, "loss_deviation", 1, "loss deviation", PREDICTING),
    ("update_explosion_factor", P, "update_ratio", 1, "update explosion", PREDICTING),
    ("update_vanishing_factor", P, "update_ratio", -1, "update vanishing", PREDICTING),
    ("prediction_error_threshold", P, "prediction_error", 1, "prediction error", PREDICTING),
    ("max_sign_changes", P, "sign_changes", 1, "oscillation", PREDICTING),
    ("confidence_threshold", P, "confidence", -1, "confidence drop", PREDICTING),
    ("confidence_threshold", F, "confidence", 1, "confident", {"steps_in_phase": 9, "full_needed": 9}),
    ("gradient_norm_extreme_high", F, "grad_norm", 1, "extreme gradient", {}),
    ("gradient_norm_extreme_high", C, "grad_norm", 1, "extreme gradient", {"validated_steps": 0, "correct_needed": 9}),
]
"""(setting, phase, signal, +1: taken above, -1: below, cause, the rest of the moment)."""

JOINED = {
    "gradient_norm_extreme_high": {
        "gradient_norm_extreme_low": 0.0,
        "gradient_norm_low": 0.0,
        "gradient_norm_high": 0.0,
    },
    "prediction_error_threshold": {"prediction_error_warning": 0.0},
}
"""Settings that must not be above the one in question."""


def config_with(name: str, value: float) -> Config:
    config = Config()
    for other, lowest in JOINED.get(name, {}).items():
        config = with_live_setting(config, other, lowest)
    return with_live_setting(config, name, value)


def value_of(name: str, where: float) -> float:
    """A value of the setting: 0 its lower bound, 1 its upper, between them between."""
    setting = SETTINGS[name]
    assert setting.low is not None and setting.high is not None
    value = setting.low + where * (setting.high - setting.low)
    return float(round(value)) if setting.type == "int" else value


@pytest.mark.parametrize(("name", "phase", "signal", "sign", "cause", "moment"), TABLE)
@settings(max_examples=40, deadline=None)
@given(where=st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
def test_a_threshold_anywhere_within_its_bounds_is_strict(
    name: str, phase: Phase, signal: str, sign: int, cause: str, moment: dict[str, Any], where: float
) -> None:
    limit = value_of(name, where)
    config = config_with(name, limit)

    def due(value: float) -> str | None:
        decision = decide(phase, Signals(**moment | {signal: value}), config)
        return decision.transition.cause if decision else None

    beyond, within = (math.nextafter(limit, sign * math.inf), math.nextafter(limit, -sign * math.inf))
    if signal == "sign_changes":
        beyond, within = limit + 1, limit - 1
    assert due(beyond) == cause
    assert due(limit) is None, "the limit itself is not past it"
    assert due(within) is None
    assert due(math.nan) is None


@pytest.mark.parametrize("name", sorted({row[0] for row in TABLE}))
def test_a_threshold_past_its_bounds_is_refused_with_the_bounds(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.low is not None and setting.high is not None
    for outside in (setting.low - 1, setting.high * 2 + 1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=re.escape(f"from {setting.low:g} to {setting.high:g}")):
            with_live_setting(Config(), name, outside)


@given(window=st.integers(0, 20), since=st.none() | st.integers(0, 21))
def test_no_prediction_before_the_divergence_window_is_over(window: int, since: int | None) -> None:
    config = with_live_setting(Config(), "divergence_window", window)
    decision = decide(F, Signals(steps_in_phase=9, full_needed=9, confidence=0.99, since_divergence=since), config)
    assert (decision is not None) == (since is None or since >= window)


@given(factor=st.sampled_from([1.0, 10.0, 1e9]), baseline=st.floats(0.01, 1e3))
def test_an_extreme_gradient_is_past_the_limit_and_past_its_own_baseline(factor: float, baseline: float) -> None:
    config = with_live_setting(Config(), "update_explosion_factor", factor)
    limit = max(100.0, factor * baseline)

    def rolls_back(norm: float) -> bool:
        return decide(F, Signals(grad_norm=norm, grad_norm_baseline=baseline), config) is not None

    assert rolls_back(math.nextafter(limit, math.inf)) and not rolls_back(limit)


RUNGS: list[tuple[str, str, int, Severity]] = [
    ("loss_deviation_warning", "loss_deviation", 1, Severity.WARNING),
    ("gradient_norm_high", "grad_norm", 1, Severity.WARNING),
    ("gradient_norm_low", "grad_norm", -1, Severity.WARNING),
    ("max_sign_changes", "sign_changes", 1, Severity.WARNING),
    ("update_explosion_factor", "grad_growth", 1, Severity.WARNING),
    ("gradient_variance_high", "grad_variance", 1, Severity.WARNING),
    ("grad_param_ratio_high", "grad_param_ratio", 1, Severity.CAUTION),
    ("grad_param_ratio_low", "grad_param_ratio", -1, Severity.CAUTION),
    ("plateau_steps", "steps_without_gain", 1, Severity.WARNING),
    ("divergence_rate_limit", "divergence_rate", 1, Severity.WARNING),
    ("divergences_in_a_row", "divergences_in_a_row", 1, Severity.CRITICAL),
    ("full_share_limit", "full_share", 1, Severity.CAUTION),
    ("overfitting_validations", "overfitting", 1, Severity.WARNING),
    ("validation_gap", "validation_gap", 1, Severity.CAUTION),
    ("underfitting_validations", "underfitting", 1, Severity.WARNING),
    ("implied_rate_limit", "implied_rate", 1, Severity.WARNING),
]
"""(setting, signal, +1: passed upwards, -1: downwards, how bad)."""


def reset(name: str) -> Config:
    """A configuration in which the setting may take any value: the rungs beside it are out of the way."""
    far = {"gradient_norm_extreme_low": 0.0, "gradient_norm_low": 0.0, "gradient_norm_high": 0.0}
    config = with_live_setting(Config(), "gradient_norm_extreme_high", 1e9)
    for other, value in far.items():
        config = with_live_setting(config, other, value)
    config = with_live_setting(config, "divergence_threshold", 100.0)
    if name == "gradient_norm_low":
        config = with_live_setting(config, "gradient_norm_high", 1e9)
    if name == "grad_param_ratio_low":
        return with_live_setting(config, "grad_param_ratio_high", 1e6)
    return with_live_setting(config, "grad_param_ratio_low", 0.0)


@pytest.mark.parametrize(("name", "signal", "sign", "severity"), RUNGS)
@settings(max_examples=30, deadline=None)
@given(where=st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
def test_a_rung_anywhere_within_its_bounds_is_passed_strictly(
    name: str, signal: str, sign: int, severity: Severity, where: float
) -> None:
    limit = value_of(name, where)
    ladder = ladders(with_live_setting(reset(name), name, limit))[signal].side(sign > 0)
    beyond = math.nextafter(limit, sign * math.inf)
    found = ladder.classify(beyond)
    assert found is severity or (found > severity and where in (0.0, 1.0)), "at a bound a worse rung may coincide"
    assert ladder.classify(limit) is Severity.HEALTHY
    assert ladder.limit(found, beyond) == limit
    low, high = ladder.healthy
    assert (high if sign > 0 else low) == limit


@settings(max_examples=200, deadline=None)
@given(value=st.floats(allow_nan=True), above=st.booleans(), signal=st.sampled_from(sorted(ladders(Config()))))
def test_the_healthy_range_is_where_the_ladder_says_healthy(value: float, above: bool, signal: str) -> None:
    ladder = ladders(Config())[signal].side(above)
    low, high = ladder.healthy
    assert (low <= value <= high) == (ladder.classify(value) is Severity.HEALTHY)
