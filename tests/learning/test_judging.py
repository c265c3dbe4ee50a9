"""Claims about judging: the paired test, confidence, the loss curve and its oscillation, and schedules."""

import math
import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_core.learning.confidence import Confidence, Reliability, calibrated, logit, sigmoid
from trainer_core.learning.loss_curve import Baseline, LossCurve
from trainer_core.learning.paired import Z_LIMIT, Paired, paired_test, pooled_gain
from trainer_core.learning.schedules import Schedule, learning_rate_at
from trainer_core.spec.config import Config, LearningRateSchedule
from trainer_core.spec.loading import resolve

# -- paired test ----------------------------------------------------------------------------------------------------


def test_pure_noise_is_called_better_about_half_the_time_and_sure_almost_never() -> None:
    generator = torch.Generator().manual_seed(0)
    tests = [paired_test(*torch.randn(2, 64, generator=generator)) for _ in range(2000)]
    better = sum(t.better for t in tests) / len(tests)
    assert 0.46 < better < 0.54
    assert sum(t.z > 1.645 for t in tests) / len(tests) < 0.08


def test_a_common_gain_far_below_the_batch_noise_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(64, generator=generator) * 10
    test = paired_test(before, before - 0.1 + 0.05 * torch.randn(64, generator=generator))
    assert test.better and test.z == Z_LIMIT
    assert test.gain == pytest.approx(0.1, abs=0.03)
    assert test.gain == pytest.approx(test.before - test.after, abs=1e-5)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=30))
def test_z_is_bounded_and_has_the_sign_of_the_gain(pairs: list[tuple[float, float]]) -> None:
    before, after = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    test = paired_test(before, after)
    assert -Z_LIMIT <= test.z <= Z_LIMIT
    assert test.z * test.gain >= 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_side_that_is_no_number_loses(broken: float) -> None:
    fine, bad = torch.ones(4), torch.tensor([1.0, broken, 1.0, 1.0])
    assert (paired_test(fine, bad).z, paired_test(fine, bad).better) == (-Z_LIMIT, False)
    assert paired_test(bad, fine).z == Z_LIMIT
    assert not paired_test(bad, bad).better


def test_one_sample_is_one_coin() -> None:
    assert paired_test(torch.tensor([2.0]), torch.tensor([1.0])).z == 1.0
    assert paired_test(torch.tensor([1.0]), torch.tensor([1.0])).z == 0.0


# -- confidence -----------------------------------------------------------------------------------------------------


def test_confidence_begins_at_its_prior_and_is_the_mean_of_the_last_eight_probes() -> None:
    confidence = Confidence()
    assert confidence.displayed == pytest.approx(sigmoid(0.86))
    values = [confidence.probed(z) for z in (-6, *range(8))]
    assert values[-1] == calibrated(7.0, (-6 + 21) / 8) == pytest.approx(sigmoid(0.86 + 0.72 * 7 + 0.63 * 15 / 8))
    assert confidence.displayed == pytest.approx(sum(values[1:]) / 8)


@given(st.floats(-6, 6), st.floats(-6, 6))
def test_more_evidence_is_never_less_confidence(a: float, b: float) -> None:
    assert 0 < calibrated(a) < 1
    assert calibrated(min(a, b)) <= calibrated(max(a, b))
    assert calibrated(a, min(a, b)) <= calibrated(a, max(a, b))
    counted = min(b, 0.0) if a < -2 else b
    assert logit(calibrated(a, b)) == pytest.approx(0.86 + 0.72 * a + 0.63 * counted, abs=1e-6)


def test_past_successes_do_not_outvote_a_probe_of_plain_harm() -> None:
    assert calibrated(-1.9, 6.0) > 0.9 and calibrated(-2.1, 6.0) == calibrated(-2.1) < 0.35


def test_the_same_probe_is_trusted_more_where_probes_have_been_paying() -> None:
    paying, noisy = Confidence(), Confidence()
    for z in (2.0, 1.5, 2.5):
        paying.probed(z)
        noisy.probed(-z)
    assert paying.of(0.5) > 0.85 > calibrated(0.5) > 0.6 > noisy.of(0.5)


def test_two_tests_are_pooled_by_their_precision() -> None:
    sure, unsure = Paired(1.0, 0.9, 0.1, 0.01, 6.0), Paired(1.0, 1.2, -0.2, 0.1, -2.0)
    assert pooled_gain(sure, unsure) == pytest.approx((0.1 / 1e-4 - 0.2 / 1e-2) / (1 / 1e-4 + 1 / 1e-2))
    assert pooled_gain(sure, unsure) == pooled_gain(unsure, sure) > 0
    assert pooled_gain(sure, Paired(1.0, math.inf, -math.inf, math.inf, -6.0)) == -math.inf


def test_the_reliability_bins_say_what_was_stated_and_what_came_of_it() -> None:
    reliability = Reliability()
    for stated, better in ((0.91, True), (0.95, True), (0.99, False), (0.05, False), (1.0, True)):
        reliability.add(stated, better)
    assert reliability.counts == [1, 0, 0, 0, 0, 0, 0, 0, 0, 4] and reliability.better[9] == 3
    assert reliability.stated[9] / 4 == pytest.approx((0.91 + 0.95 + 0.99 + 1.0) / 4)
    again = Reliability()
    again.load_state_dict(reliability.state_dict())
    assert (again.outcomes, again.brier) == (5, reliability.brier)


def test_a_prediction_that_holds_keeps_its_confidence_and_one_that_drifts_loses_it() -> None:
    holds, drifts, falls = Confidence(), Confidence(), Confidence()
    for c in (holds, drifts, falls):
        c.enter(0.95)
    held = [holds.measured(1.0, 1.0, 0.1) for _ in range(10)]
    drifted = [drifts.measured(1.1, 1.0, 0.1) for _ in range(10)]
    better = [falls.measured(0.5, 1.0, 0.1) for _ in range(10)]
    assert all(c == pytest.approx(0.95) for c in held + better)
    assert drifted[0] > 0.85 > drifted[3] > drifted[-1]
    assert drifts.measured(math.nan, 1.0, 0.1) == 0.0


def test_the_calibration_is_the_brier_score_of_the_verdicts() -> None:
    confidence = Confidence()
    assert confidence.brier is None
    confidence.resolved(0.9, True)
    confidence.resolved(0.8, False)
    assert confidence.brier == pytest.approx((0.01 + 0.64) / 2)
    again = Confidence()
    again.load_state_dict(confidence.state_dict())
    assert again.brier == confidence.brier and again.displayed == confidence.displayed


# -- loss curve -----------------------------------------------------------------------------------------------------


def most_sign_changes(losses: list[float]) -> int:
    """The most that was ever counted."""
    curve, most = LossCurve(), 0
    for loss in losses:
        curve.update(loss)
        most = max(most, curve.sign_changes or 0)
    return most


def test_white_noise_rarely_counts_as_oscillation_and_a_real_oscillation_always_does() -> None:
    """Every difference counted, almost every window of noise "oscillates"; counting the large ones, one in eight."""
    rng, curve = random.Random(0), LossCurve()
    noise = [2 + rng.gauss(0, 0.3) for _ in range(12 * 400)]
    counted, unfiltered = 0, 0
    for start in range(0, len(noise), 12):
        curve.forget_oscillation()
        for loss in noise[start : start + 12]:
            curve.update(loss)
        counted += (curve.sign_changes or 0) > 3
        rises = [b > a for a, b in pairwise(noise[start : start + 12])]
        unfiltered += sum(a != b for a, b in pairwise(rises)) > 3
    assert unfiltered > 0.9 * 400 and counted < 0.17 * 400
    assert most_sign_changes([2 + (0.5 if i % 2 else -0.5) for i in range(40)]) > 3
    assert most_sign_changes([5 * 0.97**i for i in range(60)]) == 0


def test_sign_changes_need_ten_steps_and_are_counted_within_a_phase() -> None:
    curve = LossCurve()
    for i in range(11):
        curve.update(2.0 + i % 2)
    assert curve.sign_changes is None
    curve.update(2.0)
    assert curve.sign_changes is not None
    curve.forget_oscillation()
    assert curve.sign_changes is None


def test_a_deviation_is_signed_and_measured_before_the_loss_counts() -> None:
    curve = LossCurve()
    assert curve.deviation(1.0) is None
    rng = random.Random(1)
    for _ in range(200):
        curve.update(1.0 + rng.gauss(0, 0.1))
    up, down = curve.deviation(1.5), curve.deviation(0.5)
    assert up is not None and down is not None and up > 3 and down < -3
    assert curve.sigma == pytest.approx(0.1, rel=0.5)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_enters_the_statistics(broken: float) -> None:
    curve, baseline = LossCurve(), Baseline()
    for value in (1.0, 2.0, broken):
        curve.update(value)
        baseline.update(value)
    assert curve.ema == pytest.approx(1.1) and baseline.mean == pytest.approx(1.5)
    assert baseline.variance == pytest.approx(0.5)


def test_the_curve_is_stable_when_its_ema_stands_still() -> None:
    curve = LossCurve()
    for _ in range(20):
        curve.update(2.0)
    assert curve.relative_change is None
    curve.update(2.0)
    assert curve.relative_change == 0.0
    again = LossCurve()
    again.load_state_dict(curve.state_dict())
    assert again.state_dict() == curve.state_dict()


# -- schedules ------------------------------------------------------------------------------------------------------

WSD = LearningRateSchedule(
    type="WarmupStableDecay", warmup_steps=500, warmup_init=1e-6, warmup_target=1e-4, stable_steps=10000,
    stable_rate=1e-4, decay_steps=5000, decay_min=1e-6,
)  # fmt: skip
"""The document's block."""


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-6),
        (250, 1e-6 + 99e-6 / 2),
        (500, 1e-4),
        (10499, 1e-4),
        (10500, 1e-4),
        (13000, (1e-4 + 1e-6) / 2),
        (15500, 1e-6),
        (99999, 1e-6),
    ],
)
def test_warmup_stable_decay_passes_through_the_documents_points(step: int, rate: float) -> None:
    assert learning_rate_at(step, WSD, 1e-4) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("mode", "step", "rate"),
    [
        ("triangular", 0, 1e-5),
        ("triangular", 500, 1e-4),
        ("triangular", 1000, 1e-5),
        ("triangular", 1500, 1e-4),
        ("triangular2", 1500, 1e-5 + 9e-5 / 2),
        ("exp_range", 500, 1e-5 + 9e-5 * 0.99994**500),
    ],
)
def test_the_cyclic_schedule_is_a_triangle_between_its_rates(mode: str, step: int, rate: float) -> None:
    schedule = resolve({"learning_rate_schedule": {"type": "Cyclic", "base_lr": 1e-5, "max_lr": 1e-4, "mode": mode}})
    assert learning_rate_at(step, schedule.config.learning_rate_schedule, 1.0) == pytest.approx(rate)


def test_constant_and_warmup_only() -> None:
    assert learning_rate_at(7, LearningRateSchedule(), 0.3) == 0.3
    warmup = LearningRateSchedule(type="WarmupOnly", warmup_steps=10, warmup_init=0.0)
    assert [learning_rate_at(s, warmup, 1.0) for s in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    none = LearningRateSchedule(type="WarmupStableDecay", warmup_steps=0, stable_steps=0, decay_steps=0)
    assert learning_rate_at(5, none, 1e-3) == 1e-6


def test_an_operators_scale_survives_the_next_step_and_the_saved_state() -> None:
    weights = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weights], "lr": 0.1}], 0.1)
    schedule = Schedule(optimizer, Config())
    schedule.scale = 0.5
    assert schedule.apply(3) == schedule.apply(4) == pytest.approx(0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    again = Schedule(torch.optim.SGD([weights], 0.1), Config())
    again.load_state_dict(schedule.state_dict())
    assert again.apply(4) == pytest.approx(0.05)


@pytest.mark.parametrize(("step", "rate"), [(0, 1e-6), (50, (1e-6 + 1e-3) / 2), (100, 1e-3), (10_000, 1e-3)])
def test_a_warmup_goes_to_its_target_and_stays_there(step: int, rate: float) -> None:
    """WarmupOnly went to the initial rate, whatever warmup_target was."""
    schedule = LearningRateSchedule(type="WarmupOnly", warmup_steps=100, warmup_init=1e-6, warmup_target=1e-3)
    assert learning_rate_at(step, schedule, 1e-4) == pytest.approx(rate, rel=1e-9)
