"""The document's checklists, item by item with the numbers, when they are due. Raises no alert, changes nothing."""

from typing import Any

import msgspec

from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Checklist, ChecklistItem, PhaseChanged, StepRecord


def within(item: str, value: float | None, low: float, high: float) -> ChecklistItem:
    """``low <= value <= high``; NaN is not within anything."""
    if value is None:
        return ChecklistItem(item, None, "not measured")
    return ChecklistItem(item, low <= value <= high, f"{value:.3g}, healthy {low:.3g} to {high:.3g}")


class Checklists:
    """When each checklist is due: the first step, every ``checklist_every`` steps, and the end of WARMUP."""

    def __init__(self) -> None:
        self._last: StepRecord | None = None
        """The newest step with a backward pass."""
        self._variance: float | None = None
        """Relative variance of the gradient norm at the last look."""
        self._looked_at = 0

    def step(self, record: StepRecord, config: Config, finite: bool) -> Checklist | None:
        """The checklist that is due after a measured step, if one is."""
        if record.grad_norm is not None:
            self._last = record
            if record.backward_passes == 1:
                return Checklist(record.step, "before training", before_training(record, config, finite))
        every = config.health.checklist_every
        if self._last is None or record.step // every <= self._looked_at // every:
            return None
        self._looked_at = record.step
        items, self._variance = during_training(self._last, config, self._variance)
        return Checklist(record.step, "during training", items)

    def phase(self, change: PhaseChanged, config: Config) -> Checklist | None:
        """The warmup checklist, when WARMUP ends."""
        if change.from_phase is not Phase.WARMUP or self._last is None:
            return None
        return Checklist(change.step - 1, "warmup", warmup(self._last, config))

    def state_dict(self) -> dict[str, Any]:
        last = None if self._last is None else msgspec.to_builtins(self._last)
        return {"last": last, "variance": self._variance, "looked_at": self._looked_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._last = None if state["last"] is None else msgspec.convert(state["last"], StepRecord)
        self._variance, self._looked_at = state["variance"], state["looked_at"]


def before_training(record: StepRecord, config: Config, finite: bool) -> tuple[ChecklistItem, ...]:
    """After one step (methodology, "Gradient Health Checklist")."""
    d, h = config.divergence_config, config.health
    return (
        within("gradient norm after 1 step", record.grad_norm, d.gradient_norm_low, d.gradient_norm_high),
        *_layers(record, config),
        within("gradient/parameter ratio", record.grad_param_ratio, h.grad_param_ratio_low, h.grad_param_ratio_high),
        ChecklistItem("no NaN or Inf in gradients", finite, "all finite" if finite else "NaN or Inf"),
    )


def during_training(
    record: StepRecord, config: Config, variance_before: float | None
) -> tuple[tuple[ChecklistItem, ...], float | None]:
    """Every 100 steps (methodology, "Gradient Health Checklist"); and the relative variance for the next look."""
    h, baseline, factor = config.health, record.grad_norm_baseline, config.health.gradient_stable_factor
    grown = record.grad_norm / baseline if record.grad_norm is not None and baseline else None
    variance = record.grad_variance / baseline**2 if record.grad_variance is not None and baseline else None
    before = variance if variance_before is None else variance_before
    highest = factor * before if before is not None else 0.0
    items = (
        within("gradient norm / baseline stable", grown, 1 / factor, factor),
        *_layers(record, config)[1:],
        within("gradient variance / baseline^2 not increasing", variance, 0.0, highest),
        within("gradient/parameter ratio", record.grad_param_ratio, h.grad_param_ratio_low, h.grad_param_ratio_high),
    )
    return items, variance


def warmup(record: StepRecord, config: Config) -> tuple[ChecklistItem, ...]:
    """At the end of WARMUP (methodology, "Warmup Phase")."""
    baseline, error = record.grad_norm_baseline, record.relative_error
    measured = "it does not say how wrong it is" if error is None else f"relative error {error:.3g}"
    return (
        within("loss EMA established", record.loss_change, 0.0, config.hybrid_trainer_config.warmup_stability),
        ChecklistItem("gradient baseline recorded", baseline is not None, f"{baseline or 0:.3g}"),
        ChecklistItem("predictor warmup complete", None if error is None else True, measured),
    )


def _layers(record: StepRecord, config: Config) -> tuple[ChecklistItem, ChecklistItem]:
    d, norms = config.divergence_config, record.layer_grad_norms
    low, high = d.gradient_norm_extreme_low, d.gradient_norm_extreme_high
    return (
        within("no layer's gradient norm too low", min(norms) if norms else None, low, float("inf")),
        within("no layer's gradient norm explodes", max(norms) if norms else None, 0.0, high),
    )
