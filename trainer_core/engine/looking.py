"""Looking ahead from FULL: probe a proposal at its horizon, shadow a refused one. Leaves the weights as they were.

adaptive   the horizon that kept and refused predictions have taught, as far as the trust region lets any tensor move.
           No search on the batch: the horizon that suits one batch best is too short for training (docs/method.md).
document   the horizon of the cycle, or a quarter of it.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trainer_core.engine import ahead
from trainer_core.engine.ahead import Arrival
from trainer_core.engine.flight import Flight
from trainer_core.engine.lengths import NO
from trainer_core.learning.loss import Batch
from trainer_core.learning.paired import Paired, pooled_gain
from trainer_core.learning.predictors.proposal import Proposal, checked_proposal
from trainer_core.spec.records import PredictionProbed

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine


class _Probe:
    """The losses of one proposal on one batch, at the horizons asked for."""

    def __init__(self, engine: "Engine", proposal: Proposal, batch: Batch, room_P: Tensor) -> None:
        """``room_P`` (P,) takes the weights to come back to."""
        self._engine, self.proposal, self._batch = engine, proposal, batch
        self.weights_P = engine.parameters.keep(room_P)
        self.before_N = engine.losses.of(batch)
        self.arrival: tuple[int, Arrival] | None = None
        """The last horizon that was measured, and what was found there."""
        self._away = False

    def at(self, horizon: int, share: bool = True) -> Tensor:
        """Per-sample losses (N,) ``horizon`` steps along the path; ``share``: a training step may follow there."""
        if self._away:
            self._engine.parameters.write(self.weights_P)
        self._away = True
        self.proposal.follow(self._engine.parameters, 0, horizon)
        if not share:
            return self._engine.samples(self._batch)
        self.arrival = horizon, ahead.arrived(self._engine, self._batch)
        return self.arrival[1].losses_N

    def leave(self) -> None:
        """Back to the weights that it found."""
        self._engine.parameters.write(self.weights_P)
        self._away = False
        self._engine.losses.keep(self._batch, self.before_N)

    def test(self, horizon: int) -> "Found":
        """Measure one horizon."""
        losses_N = self.at(horizon)
        return Found(horizon, losses_N, self._engine.compare(self.before_N, losses_N))


def look(engine: "Engine", batch: Batch) -> None:
    """Probe the predictor's proposal on a batch that no weights have seen.

    Sets ``engine.proposed``, or leaves it None when there is nothing to propose, or the batch has no label to test it.
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
    with engine.measuring.mode():
        probe = _Probe(engine, proposal, batch, torch.empty_like(engine.work_P))
        limit = min(limit, trusted_steps(engine, proposal, probe.weights_P, limit))
        horizon = max(1, min(engine.lengths.horizon(engine.config), limit))
        found = probe.test(horizon) if engine.lengths.adaptive else _fixed(engine, probe, horizon)
        probe.leave()
    test = found.test
    if test.void:
        return
    confidence = engine.confidence.probed(test.z, proposal.uncertainty)
    base = test.before if engine.lengths.adaptive or engine.curve.ema is None else engine.curve.ema
    engine.proposed = Flight(proposal, found.horizon, test, base, confidence)
    engine.proposed.window = max(1, engine.steps_in_phase)
    engine.proposed.departure_P = probe.weights_P
    if probe.arrival is not None and probe.arrival[0] == found.horizon:
        engine.proposed.arrival = probe.arrival[1]
    _say(engine, engine.proposed, test, False, engine.clock() - start)


class Found(NamedTuple):
    """A horizon with its losses (N,), and their test against no prediction."""

    horizon: int
    losses_N: Tensor
    test: Paired


def _fixed(engine: "Engine", probe: _Probe, horizon: int) -> Found:
    """The document's horizon, or a quarter of it where that is the surer one."""
    found = probe.test(horizon)
    test, threshold = found.test, engine.config.hybrid_trainer_config.confidence_threshold
    trusted = test.better and engine.confidence.of(test.z, probe.proposal.uncertainty) > threshold
    if not trusted and horizon >= 4:
        shorter = probe.test(horizon // 4)
        if shorter.test.z > found.test.z:
            return shorter
    return found


def trusted_steps(engine: "Engine", proposal: Proposal, weights_P: Tensor, limit: int) -> int:
    """Steps until one tensor would have moved by ``trust_region`` times its norm; ``limit`` where none does.

    A tensor counts as at least 0.01 per element large, so that one that begins at zero may move.
    """
    share = engine.config.hybrid_trainer_config.trust_region
    if share <= 0:
        return limit
    sizes = engine.parameters.sizes
    moved_J = proposal.lengths(sizes, limit)
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
    if proposed is not None and proposed.probe.z < NO:
        engine.budget.refuted()
    if proposed is not None and engine.budget.shadow_due():
        proposed.proposal, proposed.departure_P, proposed.arrival = proposed.proposal.kept(), None, None
        engine.shadow = proposed
    engine.probe_at = engine.steps_in_phase + max(1, engine.full_needed)


def _settle_shadow(engine: "Engine", batch: Batch) -> None:
    """Measure a refused proposal on a second batch, from the present weights, and count how right its refusal was."""
    shadow, engine.shadow = engine.shadow, None
    if shadow is None:
        return
    start = engine.clock()
    probe = _Probe(engine, shadow.proposal, batch, engine.work_P)
    test = engine.compare(probe.before_N, probe.at(shadow.horizon, share=False))
    probe.leave()
    if test.void:
        return
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
            paying=engine.progress.paying,
            seconds=seconds,
        )
    )
