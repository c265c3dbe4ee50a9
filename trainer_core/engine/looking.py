"""Looking ahead from FULL: probe a proposal, search its horizon, shadow a refused one. Leaves the weights as they were.

adaptive   from the last horizon: x 1.5 while the loss on the probe batch falls further; where it is not trusted, once
           / 3. Then to the vertex of a parabola. Never further than the trust region lets any tensor move.
document   the horizon of the cycle, or a quarter of it.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trainer_core.engine.flight import Flight
from trainer_core.engine.lengths import RATIO
from trainer_core.learning.loss import Batch
from trainer_core.learning.paired import Paired, paired_test, pooled_gain
from trainer_core.learning.predictors.proposal import Proposal, checked_proposal
from trainer_core.spec.records import PredictionProbed

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

Compare = Callable[[Tensor, Tensor], Paired]
_RETREAT = 3
"""A horizon that is not trusted is followed by one so much shorter, in the same look."""
_STRETCH, _STRETCH_IN_DOUBT = 8.0, 3.0
_WORTH_STRETCHING = 0.5
"""z above which a longer horizon is tried in the same look."""


class _Probe:
    """The losses of one proposal on one batch, at the horizons asked for."""

    def __init__(self, engine: "Engine", proposal: Proposal, batch: Batch, room_P: Tensor) -> None:
        """``room_P`` (P,) takes the weights to come back to."""
        self._engine, self._proposal, self._batch = engine, proposal, batch
        self.weights_P = engine.parameters.keep(room_P)
        self.before_N = engine.losses.of(batch)
        self.measured: dict[int, Tensor] = {}
        """Horizon -> the losses there."""

    def at(self, horizon: int) -> Tensor:
        """Per-sample losses (N,) with the weights ``horizon`` steps along the path."""
        self._engine.parameters.write(self.weights_P)
        self._proposal.follow(self._engine.parameters, 0, horizon)
        self.measured[horizon] = self._engine.samples(self._batch)
        return self.measured[horizon]

    def leave(self) -> None:
        """Back to the weights that it found."""
        self._engine.parameters.write(self.weights_P)
        self._engine.losses.keep(self._batch, self.before_N)

    def test(self, horizon: int) -> "Found":
        """Measure one horizon."""
        losses_N = self.at(horizon)
        return Found(horizon, losses_N, self._engine.compare(self.before_N, losses_N))

    def trusted(self, test: Paired) -> bool:
        """Whether the confidence of ``test`` clears the threshold."""
        confidence = self._engine.confidence.of(test.z, self._proposal.uncertainty)
        return test.better and confidence > self._engine.config.hybrid_trainer_config.confidence_threshold


def look(engine: "Engine", batch: Batch) -> None:
    """Probe the predictor's proposal on a batch that no weights have seen.

    Sets ``engine.proposed``, or leaves it None when there is nothing to propose.
    """
    _settle_shadow(engine, batch)
    engine.progress.check(engine, batch)
    if engine.progress.quiet(engine):
        return
    start = engine.clock()
    proposal = checked_proposal(engine.predictor.propose(engine.state), engine.predictor, engine.work_P)
    limit = min(engine.config.hybrid_trainer_config.max_predict_steps, engine.steps_left - 1)
    if proposal is None or limit < 1:
        return
    probe = _Probe(engine, proposal, batch, torch.empty_like(engine.work_P))
    limit = min(limit, trusted_steps(engine, proposal, probe.weights_P, limit))
    horizon = max(1, min(engine.lengths.horizon(engine.config), limit))
    search = _searched if engine.lengths.adaptive else _fixed
    found = search(engine, probe, horizon, limit)
    probe.leave()
    test = found.test
    confidence = engine.confidence.probed(test.z, proposal.uncertainty)
    base = test.before if engine.lengths.adaptive or engine.curve.ema is None else engine.curve.ema
    engine.proposed = Flight(proposal, found.horizon, test, base, confidence)
    engine.proposed.window = max(1, engine.steps_in_phase)
    engine.proposed.departure_P = probe.weights_P
    if found.horizon in probe.measured:
        engine.proposed.arrival = (batch, found.losses_N)
    _say(engine, engine.proposed, test, False, engine.clock() - start)


class Found(NamedTuple):
    """A horizon with its losses (N,), measured or read off a parabola, and their test against no prediction."""

    horizon: int
    losses_N: Tensor
    test: Paired


def _fixed(engine: "Engine", probe: _Probe, horizon: int, limit: int) -> Found:
    """The document's horizon, or a quarter of it where that is the surer one."""
    found = probe.test(horizon)
    if not probe.trusted(found.test) and horizon >= 4:
        shorter = probe.test(horizon // 4)
        if shorter.test.z > found.test.z:
            return shorter
    return found


def _searched(engine: "Engine", probe: _Probe, horizon: int, limit: int) -> Found:
    """A line search along the path that ends where the loss stops falling beyond doubt."""
    found = probe.test(horizon)
    if not probe.trusted(found.test):
        shortest = engine.lengths.shortest(engine.config)
        return (
            found
            if horizon <= shortest
            else lowest(probe.before_N, probe.test(max(shortest, horizon // _RETREAT)), found, engine.compare)
        )
    most = horizon * _stretch(engine)
    while found.test.z > _WORTH_STRETCHING and found.horizon < min(limit, most):
        longer = probe.test(min(limit, max(found.horizon + 1, round(found.horizon * RATIO))))
        if not (engine.compare(found.losses_N, longer.losses_N).better and probe.trusted(longer.test)):
            return lowest(probe.before_N, found, longer, engine.compare)
        found = longer
    return found


def _stretch(engine: "Engine") -> float:
    """How many times the last horizon one look may reach: less after a refusal, for the best of many looks flatters."""
    if engine.lengths.refusals == 0:
        return _STRETCH
    return _STRETCH_IN_DOUBT if engine.predictions_kept else 1.0


def lowest(before_N: Tensor, near: Found, far: Found, compare: Compare = paired_test) -> Found:
    """The vertex of the parabola through the mean gains at 0, a (``near``) and b (``far``), where it lies between a / 2
    and b and promises more than ``near``; else ``near``. No pass is spent on it:

        gain(h) = s h - k h^2,   k = (gain_a / a - gain_b / b) / (b - a),   s = gain_a / a + k a;   vertex s / 2k

    Each sample's loss there is read off a parabola of its own.
    """
    a, b = near.horizon, far.horizon
    bend = (near.test.gain / a - far.test.gain / b) / (b - a)
    slope = near.test.gain / a + bend * a
    if not (math.isfinite(bend) and bend > 0 and slope > 0):
        return near
    best = min(b - 1, round(slope / (2 * bend)))
    if best < max(1, a // 2):
        return near
    near_N, far_N = (before_N - near.losses_N) / a, (before_N - far.losses_N) / b
    bend_N = (near_N - far_N) / (b - a)
    losses_N = before_N - ((near_N + bend_N * a) * best - bend_N * best**2)
    test = compare(before_N, losses_N)
    return Found(best, losses_N, test) if test.gain > near.test.gain else near


def trusted_steps(engine: "Engine", proposal: Proposal, weights_P: Tensor, limit: int) -> int:
    """Steps until one tensor would have moved by ``trust_region`` times its norm; ``limit`` where none does.

    A tensor counts as at least 0.01 per element large, so that one that begins at zero may move.
    """
    share = engine.config.hybrid_trainer_config.trust_region
    if share <= 0:
        return limit
    sizes = engine.parameters.sizes
    moved_J = torch.stack(torch._foreach_norm(list(proposal.change(0, limit).split(sizes))))
    large_J = torch.stack(torch._foreach_norm(list(weights_P.split(sizes))))
    least_J = 0.01 * torch.tensor([float(n) for n in sizes], device=moved_J.device).sqrt()
    furthest = float((moved_J / torch.maximum(large_J, least_J)).max())
    return limit if furthest <= share else max(1, int(limit * share / furthest))


def refused(engine: "Engine") -> None:
    """The probe did not earn a prediction: look again later, at a shorter horizon or after a longer window."""
    proposed, engine.proposed = engine.proposed, None
    if engine.progress.quiet(engine):
        return
    engine.lengths.refused(engine.config, proposed.probe.z if proposed else None)
    if proposed is not None and engine.budget.shadow_due():
        proposed.proposal, proposed.departure_P = proposed.proposal.kept(), None
        engine.shadow = proposed
    engine.probe_at = engine.steps_in_phase + max(1, engine.full_needed)


def _settle_shadow(engine: "Engine", batch: Batch) -> None:
    """Measure a refused proposal on a second batch, from the present weights, and count how right its refusal was."""
    shadow, engine.shadow = engine.shadow, None
    if shadow is None:
        return
    start = engine.clock()
    probe = _Probe(engine, shadow.proposal, batch, engine.work_P)
    test = engine.compare(probe.before_N, probe.at(shadow.horizon))
    probe.leave()
    engine.confidence.resolved(shadow.confidence, pooled_gain(shadow.probe, test) > 0)
    engine.recorder.calibration(every=8)
    _say(engine, shadow, test, True, engine.clock() - start)


def _say(engine: "Engine", flight: Flight, test: Paired, shadow: bool, seconds: float) -> None:
    engine.record(
        PredictionProbed(
            step=engine.step_count,
            cycle=engine.cycle,
            horizon=flight.horizon,
            loss_before=test.before,
            loss_after=test.after,
            gain=test.gain,
            gain_se=test.standard_error,
            z=test.z,
            confidence=flight.confidence,
            better=test.better,
            shadow=shadow,
            uncertainty=flight.proposal.uncertainty,
            seconds=seconds,
        )
    )
