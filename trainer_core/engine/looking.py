"""Looking ahead from FULL: probe a proposal, search its horizon, shadow a refused one. Leaves the weights as they were.

adaptive   from the last horizon: x 1.5 while the loss on the probe batch falls further; where it is not trusted,
           / 1.5 up to three times. Never further than the trust region lets any tensor move.
document   the horizon of the cycle, or a quarter of it.
"""

from typing import TYPE_CHECKING

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

_RETREATS = 3
"""Shorter horizons tried in one look."""
_WORTH_STRETCHING = 0.5
"""z above which a longer horizon is tried in the same look."""
_SHADOW_EVERY = 4
"""One refused proposal in so many is measured again on the next batch: what would have become of it?"""


class _Probe:
    """The losses of one proposal on one batch, at the horizons asked for."""

    def __init__(self, engine: "Engine", proposal: Proposal, batch: Batch, room_P: Tensor) -> None:
        """``room_P`` (P,) takes the weights to come back to."""
        self._engine, self._proposal, self._batch = engine, proposal, batch
        self.weights_P = engine.parameters.read(room_P)
        self.before_N = engine.samples(batch)

    def at(self, horizon: int) -> Tensor:
        """Per-sample losses (N,) with the weights ``horizon`` steps along the path."""
        self._engine.parameters.write(self.weights_P)
        self._proposal.follow(self._engine.parameters, 0, horizon)
        return self._engine.samples(self._batch)

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
    horizon, after_N, test = search(engine, probe, horizon, limit)
    engine.parameters.write(probe.weights_P)
    confidence = engine.confidence.probed(test.z, proposal.uncertainty)
    base = test.before if engine.lengths.adaptive or engine.curve.ema is None else engine.curve.ema
    engine.proposed = Flight(proposal, horizon, test, base, confidence)
    engine.proposed.window = max(1, engine.steps_in_phase)
    engine.proposed.departure_P, engine.proposed.arrival = probe.weights_P, (batch, after_N)
    _say(engine, engine.proposed, test, False, engine.clock() - start)


_Found = tuple[int, Tensor, Paired]


def _fixed(engine: "Engine", probe: _Probe, horizon: int, limit: int) -> _Found:
    """The document's horizon, or a quarter of it where that is the surer one."""
    after_N = probe.at(horizon)
    test = paired_test(probe.before_N, after_N)
    if not probe.trusted(test) and horizon >= 4:
        shorter_N = probe.at(horizon // 4)
        shorter = paired_test(probe.before_N, shorter_N)
        if shorter.z > test.z:
            return horizon // 4, shorter_N, shorter
    return horizon, after_N, test


def _searched(engine: "Engine", probe: _Probe, horizon: int, limit: int) -> _Found:
    """A line search along the path that ends where the loss stops falling beyond doubt."""
    after_N = probe.at(horizon)
    test = paired_test(probe.before_N, after_N)
    if probe.trusted(test):
        while test.z > _WORTH_STRETCHING and horizon < limit:
            longer = min(limit, max(horizon + 1, round(horizon * RATIO)))
            longer_N = probe.at(longer)
            further = paired_test(probe.before_N, longer_N)
            if not (paired_test(after_N, longer_N).better and probe.trusted(further)):
                break
            horizon, after_N, test = longer, longer_N, further
        return horizon, after_N, test
    shortest = engine.lengths.shortest(engine.config)
    for _ in range(_RETREATS):
        if probe.trusted(test) or horizon <= shortest:
            break
        horizon = max(shortest, min(horizon - 1, round(horizon / RATIO)))
        after_N = probe.at(horizon)
        test = paired_test(probe.before_N, after_N)
    return horizon, after_N, test


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
    engine.lengths.refused(engine.config, proposed.horizon if proposed else None)
    if proposed is not None and engine.lengths.refusals % _SHADOW_EVERY == 1:
        proposed.proposal, proposed.departure_P = proposed.proposal.kept(), None
        engine.shadow = proposed
    engine.probe_at = engine.steps_in_phase + max(1, engine.lengths.full_needed(engine.config))


def _settle_shadow(engine: "Engine", batch: Batch) -> None:
    """Measure a refused proposal on a second batch, from the present weights, and count how right its refusal was."""
    shadow, engine.shadow = engine.shadow, None
    if shadow is None:
        return
    start = engine.clock()
    probe = _Probe(engine, shadow.proposal, batch, engine.work_P)
    test = paired_test(probe.before_N, probe.at(shadow.horizon))
    engine.parameters.write(probe.weights_P)
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
