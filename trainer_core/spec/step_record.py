"""The record of one measured step, and what all records share. Knows nothing of how they are stored or sent."""

import msgspec

from trainer_core.spec.phases import Phase


class JournalRecord(msgspec.Struct, frozen=True, tag_field="kind"):
    """Readers of an older version ignore fields they do not know."""


class StepRecord(JournalRecord, frozen=True, tag="step"):
    """One measured step: a forward pass ran. All norms are L2; all times are seconds of wall clock."""

    step: int
    """Nominal step, whatever the phase; goes back at a rollback."""
    batch: int
    """Batches of training data consumed so far."""
    phase: Phase
    cycle: int
    step_in_phase: int
    """1 for the first step of the phase."""
    phase_budget: int | None
    """Steps this phase may last; None when it has no fixed length."""
    loss: float | None
    """Training loss of this step's batch."""
    loss_ema: float | None = None
    loss_sigma: float | None = None
    """Standard deviation of the loss about its EMA."""
    loss_deviation: float | None = None
    """(loss - EMA) / sigma."""
    predicted_loss: float | None = None
    """What the predictor expected this step's loss to be; None outside PREDICT."""
    predicted_low: float | None = None
    predicted_high: float | None = None
    prediction_error: float | None = None
    """abs(actual - predicted) / abs(actual) of the loss; None where no prediction existed."""
    relative_error: float | None = None
    """norm(actual delta - predicted delta) / norm(actual delta) of the weights in a full step (residual error)."""
    confidence: float | None = None
    """Calibrated probability that applying the next proposal lowers the loss."""
    grad_norm: float | None = None
    """None: no backward pass ran."""
    grad_norm_baseline: float | None = None
    grad_param_ratio: float | None = None
    grad_variance: float | None = None
    """Variance of the gradient norm over the recent window."""
    update_norm: float | None = None
    """Norm of the weight change of this step."""
    update_norm_baseline: float | None = None
    param_norm: float | None = None
    learning_rate: float | None = None
    sign_changes: int | None = None
    """Sign changes of the loss difference in the last 10 steps."""
    step_seconds: float | None = None
    forward_seconds: float | None = None
    backward_seconds: float | None = None
    optimizer_seconds: float | None = None
    predict_seconds: float | None = None
    """Predictor, its training, probes, snapshots and correction inside this step."""
    predictor_train_seconds: float | None = None
    """Of these, the learned predictor's training; None: it did not train at this step."""
    backward_passes: int = 0
    """Since the run began, over all attempts."""
    loss_change: float | None = None
    """Relative change of the loss EMA over the last 20 steps: what WARMUP waits for."""
    update_ratio: float | None = None
    """Update norm of one step / its baseline."""
    horizon: int | None = None
    """Steps the next prediction would try, or the present one lasts."""
    full_needed: int | None = None
    """FULL steps before the next look at a proposal."""
    since_divergence: int | None = None
    """Steps since the last divergence; None: there was none."""
    refusals: int | None = None
    """Proposals refused in a row."""
    predictions_kept: int | None = None
    predictions_undone: int | None = None
    brier: float | None = None
    """Mean squared error of the stated confidences so far; None before the first outcome."""
    residuals: int | None = None
    """Residuals remembered."""
    micro_batches: int | None = None
    """Micro-batches the batch was cut into (gradient accumulation); None when no backward pass ran."""
    micro_grad_variance: float | None = None
    """Trace of the covariance of the gradient, estimated over this step's micro-batches; None with fewer than two."""
    micro_grad_snr: float | None = None
    """Squared norm of the gradient / micro_grad_variance: signal to noise; None with fewer than two micro-batches."""
    orthogonaliser_confidence: float | None = None
    """Muon: cos(step by the old orthogonaliser, step by the new one); None where the step did not compare them."""
    orthogonaliser_predicted: int | None = None
    """Muon: 1 if the step used an old orthogonaliser, 0 if its own; None where none is ever predicted."""
    slowest_rank: int | None = None
    """Of several ranks: the one that took longest for its own forward and backward pass; None: a single process."""
    rank_spread_seconds: float | None = None
    """By how much longer than the fastest one."""
    layer_grad_norms: tuple[float, ...] | None = None
    """One per name in ``RunStarted.layers``; None when no backward pass ran."""
