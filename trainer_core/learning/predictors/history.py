"""The blocks a learned predictor learns from: features at each one's start, and what then happened. On the host.

Everything is measured in units of b_0's norm within the group, so a coefficient of 1 on b_0 is the optimizer's step.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.predictors.basis import RawBlock
from trainer_core.learning.predictors.encoding import cosines, global_features, group_features
from trainer_core.learning.training_state import TrainingState

_MOST = 256
_LEAST = 1e-30


class Blocks(msgspec.Struct, frozen=True):
    """N blocks of J groups, oldest first; float32 on one device."""

    global_NF: Tensor
    """Standardised over the history."""
    group_NJG: Tensor
    cosines_NJBB: Tensor
    cross_NJ2B: Tensor
    """<unit b_i, D> / norm(b_0), after W/2 and W steps."""
    energy_NJ2: Tensor
    """norm(D)^2 / norm(b_0)^2."""
    share_NJ: Tensor
    """norm(b_0)^2 of the group over the whole change's norm(D)^2."""
    loss_N: Tensor
    """Log of the loss EMA at the block's end over that at its start."""

    def __getitem__(self, index: Any) -> "Blocks":
        return Blocks(*(getattr(self, name)[index] for name in self.__struct_fields__))


class History:
    """At most 256 blocks; the oldest go first. Blocks with a number that is none are left out."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self._sizes, self._device = tuple(sizes), device
        self._blocks: deque[list[Tensor]] = deque(maxlen=_MOST)
        self._before: list[Tensor] | None = None
        self._seen = 0
        self._stacked: Blocks | None = None

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, raw: RawBlock, before: Sequence[TrainingState], during: Sequence[TrainingState]) -> None:
        """Take in a block; ``before``: the states of the block before it, ``during``: its own. Waits for the device."""
        gram_JBB, cross_J2B, energy_J2 = (t.cpu().double() for t in (raw.gram_JBB, raw.cross_J2B, raw.energy_J2))
        global_F, group_JG = self.features(gram_JBB, before)
        cosines_JBB, norms_JB = cosines(gram_JBB)
        main_J = norms_JB[:, 0].clamp_min(_LEAST)
        cross_J2B = cross_J2B / (norms_JB.clamp_min(_LEAST) * main_J[:, None])[:, None, :]
        share_J = main_J.square() / energy_J2[:, 1].sum().clamp_min(_LEAST)
        energy_J2 = energy_J2 / main_J.square()[:, None]
        cross_J2B[norms_JB[:, 0] <= _LEAST], energy_J2[norms_JB[:, 0] <= _LEAST] = 0.0, 0.0
        ema = [s.loss_ema for s in (*before[-1:], *during[-1:])]
        change = (
            torch.tensor(ema[1] / ema[0], dtype=torch.float64).log() if len(ema) == 2 and ema[0] else torch.zeros(())
        )
        block = [global_F, group_JG, cosines_JBB, cross_J2B, energy_J2, share_J, change.clamp(-2, 2)]
        self._seen += 1
        usable = all(bool(torch.isfinite(t).all()) for t in block) and float(energy_J2[:, 1].sum()) > 0
        self._before = [cross_J2B.float(), energy_J2.float()] if usable else None
        if usable:
            self._blocks.append([t.float() for t in block])
            self._stacked = None

    def features(self, gram_JBB: Tensor, states: Sequence[TrainingState]) -> tuple[Tensor, Tensor]:
        """(global (F,), group (J, G)) features at the start of a block, not standardised, on the host."""
        before = None if self._before is None else (self._before[0], self._before[1])
        group_JG = group_features(gram_JBB.cpu(), before, self._sizes)
        return global_features(states, group_JG, self._seen), group_JG

    def stacked(self) -> Blocks:
        """All blocks, standardised, on the device."""
        if self._stacked is None:
            columns = [torch.stack(column).to(self._device) for column in zip(*self._blocks, strict=True)]
            columns[0] = self._standard(columns[0])
            self._stacked = Blocks(*columns)
        return self._stacked

    def latest(self, gram_JBB: Tensor, states: Sequence[TrainingState]) -> tuple[Tensor, Tensor]:
        """(global (F,), group (J, G)) features of the block that has just begun, as a network is shown them."""
        global_F, group_JG = self.features(gram_JBB, states)
        return self._standard(global_F.to(self._device)), group_JG.to(self._device)

    def _standard(self, features: Tensor) -> Tensor:
        raw_NF = torch.stack([block[0] for block in self._blocks]).to(self._device)
        mean_F, std_F = raw_NF.mean(0), raw_NF.std(0, correction=0)
        return ((features - mean_F) / (std_F + 1e-3)).nan_to_num_().clamp(-5, 5)

    def state_dict(self) -> dict[str, Any]:
        columns = [torch.stack(column) for column in zip(*self._blocks, strict=True)]
        return {"blocks": columns, "before": self._before, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        columns = [column.cpu() for column in state["blocks"]]
        count = len(columns[0]) if columns else 0
        self._blocks = deque(([c[i].clone() for c in columns] for i in range(count)), maxlen=_MOST)
        self._before = None if state["before"] is None else [t.cpu() for t in state["before"]]
        self._seen, self._stacked = state["seen"], None
