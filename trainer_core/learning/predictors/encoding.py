"""What a learned predictor's network is shown: the training's floats over a block, and angles within the basis.

Global features (F = 64): twelve logarithms and ratios of the training state, each as last value, mean, deviation and
slope over the block (48); phase, age and gaps (7); the groups' mean angles and norm ratios (9).
Group features (G = 13): angles between the basis vectors (6), their norms over b_0's (3), how well b_0 and b_1 pointed
where the block before went (2), how straight that was (1), the group's size (1). All without a dimension.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer_core.learning.predictors.basis import VECTORS
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.phases import Phase

GLOBAL, GROUP = 64, 13
_PHASES = tuple(Phase)
_PAIRS = tuple((a, b) for a in range(VECTORS) for b in range(a + 1, VECTORS))
_LEAST = 1e-30


def state_features(state: TrainingState) -> list[float]:
    """Twelve numbers; 0 where one is not known."""
    s = state
    return [
        _log(s.loss),
        _log(s.loss_ema),
        _log(s.loss_sigma / s.loss_ema if s.loss_ema else math.nan),
        _bounded((s.loss - s.loss_ema) / s.loss_sigma if s.loss_sigma else math.nan),
        _log(s.grad_norm),
        _log(s.grad_norm / s.grad_norm_baseline if s.grad_norm_baseline else math.nan),
        _log(s.update_norm),
        _log(s.update_norm / s.update_norm_baseline if s.update_norm_baseline else math.nan),
        _log(s.param_norm),
        _log(s.learning_rate),
        _log(s.grad_norm / s.param_norm if s.param_norm else math.nan),
        _bounded(s.sign_changes) / 10,
    ]


def global_features(states: Sequence[TrainingState], groups_JG: Tensor, blocks: int) -> Tensor:
    """(F,) float32 on the host, not yet standardised."""
    rows = torch.tensor([state_features(s) for s in states] or [[0.0] * 12], dtype=torch.float64)
    time_T = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    slope = (time_T[:, None] * rows).mean(0)
    stats = torch.cat([rows[-1], rows.mean(0), rows.std(0, correction=0), slope])
    last = states[-1] if states else TrainingState()
    skipped = max(0, last.step - states[0].step - len(states) + 1) if states else 0
    rest = [*(float(last.phase is p) for p in _PHASES), math.log1p(last.steps_in_phase), math.log1p(skipped)]
    rest.append(math.log1p(blocks))
    means = groups_JG[:, :9].double().mean(0)
    return torch.cat([stats, torch.tensor(rest, dtype=torch.float64), means]).float()


def cosines(gram_JBB: Tensor) -> tuple[Tensor, Tensor]:
    """(cosines (J, B, B), norms (J, B)) of a Gram matrix; a vector of zeros has cosine 0 with everything."""
    norms_JB = gram_JBB.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    unit_JB = torch.where(norms_JB > _LEAST, 1 / norms_JB.clamp_min(_LEAST), torch.zeros_like(norms_JB))
    return gram_JBB * unit_JB[:, :, None] * unit_JB[:, None, :], norms_JB


def group_features(gram_JBB: Tensor, before: tuple[Tensor, Tensor] | None, sizes: Sequence[int]) -> Tensor:
    """(J, G) from the Gram matrix at a block's start and (cross (J, 2, B), energy (J, 2)) of the block before."""
    cosines_JBB, norms_JB = cosines(gram_JBB.double())
    angles = torch.stack([cosines_JBB[:, a, b] for a, b in _PAIRS], dim=1)
    ratios = (norms_JB[:, 1:].clamp_min(_LEAST) / norms_JB[:, :1].clamp_min(_LEAST)).log().clamp(-5, 5)
    count = len(sizes)
    past = torch.zeros(count, 3, dtype=torch.float64)
    if before is not None:
        cross_J2B, energy_J2 = before[0].double(), before[1].double().clamp_min(_LEAST)
        past[:, :2] = cross_J2B[:, 1, :2] / energy_J2[:, 1:].sqrt()
        past[:, 2] = (4 * energy_J2[:, 0] / energy_J2[:, 1]).log().clamp(-3, 3)
    shares = torch.tensor(sizes, dtype=torch.float64)
    return torch.cat([angles, ratios, past, (shares / shares.sum()).log()[:, None] / 5], dim=1).float()


def _log(value: float) -> float:
    return math.log(value) if math.isfinite(value) and value > 0 else 0.0


def _bounded(value: float) -> float:
    return max(-10.0, min(10.0, value)) if math.isfinite(value) else 0.0
