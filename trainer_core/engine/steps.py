"""One step of each phase: batch -> Outcome. Moves weights; decides nothing and records nothing.

WARMUP, FULL, CORRECT   forward, backward, optimizer, and the predictor watches
PREDICT                 w <- w + d, then a forward pass to see what it did
"""

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import torch

from trainer_core.engine import predicting
from trainer_core.engine.gradients import gradients, without_label
from trainer_core.engine.observing import residual_state
from trainer_core.learning.aging import age_second_moments
from trainer_core.learning.loss import Batch
from trainer_core.learning.parameters import whole_norm
from trainer_core.learning.predictors import checked_observation
from trainer_core.spec.phases import Phase

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine


class Outcome(msgspec.Struct, frozen=True):
    """What one measured step did. ``None`` where the phase does not have it."""

    loss: float | None
    """None: the batch has no label."""
    learning_rate: float
    update_norm: float
    param_norm: float
    forward_seconds: float
    step_seconds: float
    predict_seconds: float
    grad_norm: float | None = None
    layer_grad_norms: tuple[float, ...] | None = None
    relative_error: float | None = None
    backward_seconds: float | None = None
    optimizer_seconds: float | None = None
    predicted_loss: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    orthogonaliser_confidence: float | None = None
    orthogonaliser_predicted: int | None = None
    micro_batches: int | None = None
    micro_grad_variance: float | None = None
    micro_grad_snr: float | None = None


def full_step(engine: "Engine", batch: Batch) -> Outcome:
    """Forward, backward, optimizer step; the predictor observes the weight change (methodology, "Full Training")."""
    clock, parameters, optimizer = engine.clock, engine.parameters, engine.optimizer
    start = clock()
    rate = engine.schedule.apply(engine.step_count + 1)
    before_P = parameters.keep(engine.work_P)
    copied = clock()

    found = gradients(engine, batch)
    clip = engine.config.optimizer.gradient_clip_norm
    if clip > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters.tensors, clip, found.total_norm)
    backward_done = clock()
    predicting.ahead_of_optimizer(engine)
    kept = clock()
    engine.precision.step(optimizer)
    optimizer_done = clock()

    delta_P = parameters.change_since(before_P, engine.work_P)
    measured = [found.loss, torch.linalg.vector_norm(delta_P), *found.norms, *parameters.norms()]
    observation = checked_observation(engine.predictor.observe(delta_P, engine.state), engine.predictor, delta_P)
    confidence = engine.muon.confidence if engine.muon else None
    perhaps = (observation.relative_error, observation.residual_norm, confidence, found.noise, found.labelled_loss)
    # One intended synchronisation a step: the transition table needs these numbers before the next batch.
    numbers = iter(torch.stack([*measured, *(x.float() for x in perhaps if x is not None)]).tolist())
    loss_, update_norm = next(numbers), next(numbers)
    grad_norms, param_norms = (list(islice(numbers, len(found.norms))) for _ in range(2))
    relative, residual_norm, cosine, noise, labelled_loss = (None if x is None else next(numbers) for x in perhaps)
    if relative is None and residual_norm is not None:
        relative = residual_norm / update_norm if update_norm else math.nan
    grad_norm = whole_norm(grad_norms)
    if labelled_loss is not None and math.isnan(loss_) and math.isfinite(grad_norm):
        loss_ = labelled_loss
    if observation.residual_P is not None and math.isfinite(loss_):
        engine.residuals.push(observation.residual_P, residual_state(engine, loss_, grad_norm, update_norm))
    if engine.muon and cosine is not None:
        engine.muon.trust(cosine)
    labelled = _labelled(loss_, grad_norm, update_norm)
    if engine.unaged and labelled and math.isfinite(grad_norm):
        age_second_moments(optimizer, engine.unaged)
        engine.unaged = 0
    end = clock()
    return Outcome(
        loss=loss_ if labelled else None,
        learning_rate=rate,
        update_norm=update_norm,
        param_norm=whole_norm(param_norms),
        orthogonaliser_confidence=cosine,
        orthogonaliser_predicted=int(engine.muon.predicted) if engine.muon else None,
        grad_norm=grad_norm,
        layer_grad_norms=parameters.layer_norms(grad_norms),
        relative_error=relative,
        micro_batches=found.micro_batches,
        micro_grad_variance=noise * grad_norm**2 if noise is not None and labelled else None,
        micro_grad_snr=(1.0 / noise if noise else math.inf) if noise is not None and labelled else None,
        forward_seconds=found.forward_seconds,
        backward_seconds=backward_done - copied - found.forward_seconds,
        optimizer_seconds=optimizer_done - kept,
        predict_seconds=(end - optimizer_done) + (kept - backward_done) + (copied - start),
        step_seconds=end - start,
    )


def _labelled(loss: float, grad_norm: float, update_norm: float) -> bool:
    """Whether a batch says anything: torch's mean over no labels is NaN, and its gradient is exactly 0."""
    return not (math.isnan(loss) and grad_norm == 0.0 and math.isfinite(update_norm))


def predict_step(engine: "Engine", batch: Batch) -> Outcome:
    """Move one step along the predicted path and measure the loss there; no gradient (methodology, "Predictive")."""
    flight = engine.flight
    assert flight is not None, "PREDICT without a prediction"
    clock = engine.clock
    start = clock()
    rate = engine.schedule.apply(engine.step_count + 1)
    predicting.move(engine, flight, 1)
    moved = clock()
    with torch.no_grad(), engine.precision.forward():
        loss = engine.loss.mean(engine.model, batch, engine.config.training.accumulate)
    loss_, *param_norms = torch.stack([loss.float(), *engine.parameters.norms()]).tolist()
    if engine.ranks is not None:
        engine.ranks.ready_seconds = clock() - start
        loss_ = engine.ranks.mean(loss_)
        engine.ranks.share_buffers(engine.model)
    measured: float | None = loss_
    if math.isnan(loss_):
        known = without_label(engine, batch)
        known = known if engine.ranks is None else engine.ranks.mean(float(known)) == 1.0
        measured = None if known else loss_
    end = clock()
    low, expected, high = flight.expect(flight.taken + 1, engine.curve.sigma or 0.0)
    return Outcome(
        loss=measured,
        learning_rate=rate,
        update_norm=flight.proposal.norm_at(flight.taken),
        param_norm=whole_norm(param_norms),
        forward_seconds=end - moved,
        predict_seconds=moved - start,
        step_seconds=end - start,
        predicted_loss=expected,
        predicted_low=low,
        predicted_high=high,
    )


STEPS: dict[Phase, Callable[["Engine", Batch], Outcome]] = {
    Phase.WARMUP: full_step,
    Phase.FULL: full_step,
    Phase.PREDICT: predict_step,
    Phase.CORRECT: full_step,
}
"""The step of each phase: a correction is applied when CORRECT begins, its steps are full ones."""
