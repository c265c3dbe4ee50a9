"""What a measured step leaves for predictors and residuals to see, as floats. Moves nothing, records nothing."""

import math
from typing import TYPE_CHECKING

from trainer_core.learning.training_state import TrainingState

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine
    from trainer_core.engine.steps import Outcome


def training_state(engine: "Engine", outcome: "Outcome") -> TrainingState:
    """The training after the step that ``outcome`` came from."""
    curve, last = engine.curve, engine.last
    return TrainingState(
        step=engine.step_count,
        phase=engine.phase,
        steps_in_phase=engine.steps_in_phase,
        loss=_known(curve.ema if outcome.loss is None else outcome.loss),
        loss_ema=_known(curve.ema),
        loss_sigma=_known(curve.sigma),
        loss_change=_known(curve.relative_change),
        grad_norm=_known(outcome.grad_norm),
        grad_norm_baseline=_known(engine.grad_baseline.mean),
        update_norm=outcome.update_norm,
        update_norm_baseline=_known(engine.update_baseline.mean),
        param_norm=outcome.param_norm,
        learning_rate=outcome.learning_rate,
        sign_changes=_known(last.sign_changes),
    )


def residual_state(engine: "Engine", loss: float, grad_norm: float, update_norm: float) -> list[float]:
    """The training state residuals are remembered by: (loss, EMA, sigma, log norms, log rate)."""
    rate = engine.schedule.planned(engine.step_count + 1) * engine.schedule.scale
    engine.last_state = [
        loss,
        engine.curve.ema if engine.curve.ema is not None else loss,
        engine.curve.sigma or 0.0,
        _log(grad_norm),
        _log(update_norm),
        _log(rate),
    ]
    return engine.last_state


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _log(value: float) -> float:
    return math.log(max(value, 1e-12)) if value == value else math.nan
