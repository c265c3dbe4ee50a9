"""The record that is measured. Knows nothing of how."""

from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord

LAYERS = 24
VECTOR = tuple(1.0 / (i + 1) for i in range(LAYERS))


def a_record(step: int, vector: tuple[float, ...]) -> StepRecord:
    """A FULL step with forty scalars measured: built as the trainer builds it, from numbers at hand."""
    x = 1.0 / (1.0 + step)
    return StepRecord(
        step=step,
        batch=step,
        phase=Phase.FULL,
        cycle=step // 50,
        step_in_phase=step % 50 + 1,
        phase_budget=50,
        loss=x,
        loss_ema=x,
        loss_sigma=x,
        loss_deviation=x,
        predicted_loss=x,
        predicted_low=x,
        predicted_high=x,
        prediction_error=x,
        relative_error=x,
        confidence=x,
        grad_norm=x,
        grad_norm_baseline=x,
        grad_param_ratio=x,
        grad_variance=x,
        update_norm=x,
        update_norm_baseline=x,
        param_norm=x,
        learning_rate=x,
        sign_changes=1,
        step_seconds=x,
        forward_seconds=x,
        backward_seconds=x,
        optimizer_seconds=x,
        predict_seconds=x,
        backward_passes=step,
        predictor_train_seconds=x,
        loss_change=x,
        update_ratio=x,
        horizon=20,
        full_needed=1,
        since_divergence=step,
        refusals=0,
        predictions_kept=step,
        predictions_undone=0,
        brier=x,
        layer_grad_norms=vector,
    )
