"""What the predictor got wrong, kept within a memory bound, and the correction that similar moments imply.

r = actual delta - predicted delta        s_i = cos(state, state_i), states standardised over the history
correction = sum_i w_i r_i over the top K with s_i > threshold,  w_i = s_i / sum s      (methodology, "Correction")
"""

import math
from array import array
from collections import deque
from itertools import chain
from typing import Any

import msgspec
import torch
from torch import Tensor

from trainer_core.learning.pieces import pieces
from trainer_core.spec.records import ResidualWeight

_MOST = 200
"""The document's own history ("History: 200 residuals"). All of them are in every checkpoint: of a tiny model, 2000
made it four hundred times as large as the model, and slower to write than the steps between."""


class Selection(msgspec.Struct, frozen=True):
    """The residuals chosen for one correction."""

    history: int
    similar: int
    weights: tuple[ResidualWeight, ...]


class ResidualStore:
    """Residuals as bfloat16 vectors with the training state they came from; the oldest go first."""

    def __init__(self, parameters: int, memory_mb: float) -> None:
        capacity = min(_MOST, int(memory_mb * 2**20 / (2 * parameters)))
        self._ids: deque[int] = deque(maxlen=capacity)
        self._residuals: deque[Tensor] = deque(maxlen=capacity)
        self._states = array("d")
        """One after the other, oldest first: all of one length."""
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def capacity(self) -> int:
        """Residuals that fit; 0 when one alone exceeds the memory bound."""
        return self._ids.maxlen or 0

    def push(self, residual_P: Tensor, state: list[float]) -> None:
        """Keep a residual of shape (P,) and the state (F,) it was seen in. Non-finite ones are not kept."""
        if self.capacity == 0 or not all(map(math.isfinite, state)):
            return
        if len(self._ids) == self.capacity:
            del self._states[: len(state)]
        self._states.extend(state)
        self._ids.append(self._next_id)
        if len(self._residuals) < self.capacity:
            self._residuals.append(residual_P.to(torch.bfloat16, copy=True))
        else:  # the oldest one's memory takes the newest: allocating P every step costs more than copying it
            self._residuals.append(self._residuals.popleft().copy_(residual_P))
        self._next_id += 1

    def select(self, state: list[float], threshold: float, top_k: int) -> Selection:
        """The ``top_k`` residuals whose states are most similar to ``state``, above ``threshold`` strictly."""
        if not self._ids or not all(map(math.isfinite, state)):
            return Selection(len(self._ids), 0, ())
        states_RF = torch.frombuffer(self._states, dtype=torch.float64).view(len(self._ids), -1)
        now_F = torch.tensor(state, dtype=torch.float64)
        if len(self._ids) > 2:
            mean_F, std_F = states_RF.mean(0), states_RF.std(0).clamp_min(1e-6)
            states_RF, now_F = (states_RF - mean_F) / std_F, (now_F - mean_F) / std_F
        similarity_R = torch.nn.functional.cosine_similarity(states_RF, now_F[None], dim=1)
        similar = int((similarity_R > threshold).sum())
        best = _largest(similarity_R, self._ids[0], min(top_k, similar))
        total = sum(s for s, _ in best)
        return Selection(len(self._ids), similar, tuple(ResidualWeight(i, s, s / total) for s, i in best if total > 0))

    def correction(self, selection: Selection) -> Tensor | None:
        """The weighted sum of the selected residuals, shape (P,), float32; None when none was selected."""
        if not selection.weights:
            return None
        first = self._ids[0]
        total_P = torch.zeros_like(self._residuals[0], dtype=torch.float32)
        for chosen in selection.weights:
            for total, residual in pieces(total_P, self._residuals[chosen.residual_id - first]):
                total.add_(residual, alpha=chosen.weight)
        return total_P

    def state_dict(self) -> dict[str, Any]:
        residuals = torch.stack(list(self._residuals)) if self._residuals else None
        return {"next_id": self._next_id, "residuals": residuals, "states": self._rows()}

    def _rows(self) -> list[list[float]]:
        length = max(1, len(self._states) // max(1, len(self._ids)))
        return [self._states[i : i + length].tolist() for i in range(0, len(self._states), length)]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        count = len(state["states"])
        self._next_id = state["next_id"]
        self._ids = deque(range(self._next_id - count, self._next_id), maxlen=self.capacity)
        self._states = array("d", chain.from_iterable(state["states"][-self.capacity :] if self.capacity else ()))
        residuals = state["residuals"]
        self._residuals = deque([r.clone() for r in ([] if residuals is None else residuals)], maxlen=self.capacity)


def _largest(similarity_R: Tensor, first_id: int, count: int) -> list[tuple[float, int]]:
    """(similarity, id) of the ``count`` largest, the largest first; of equal ones the newest."""
    if not count:
        return []
    least = similarity_R.topk(count).values[-1]
    rows = (similarity_R >= least).nonzero().flatten()
    found = zip(similarity_R[rows].tolist(), rows.tolist(), strict=True)
    return sorted(((s, first_id + row) for s, row in found), reverse=True)[:count]
