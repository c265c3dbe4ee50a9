"""Claims about memory nobody asked for: of two types torch widens the narrower into a copy, on a CPU all at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer_core.learning import pieces
from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors.linear import Linear
from trainer_core.learning.residuals import ResidualStore
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.config import PredictorConfig

PIECE = 16


class Mixed(TorchDispatchMode):
    """Notes the scalars of what widens: an operation on two types, or a new tensor of another type."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        vectors = [a for a in args if isinstance(a, Tensor) and a.dim() > 0]
        mixes = len({v.dtype for v in vectors}) > 1 and func is not torch.ops.aten.copy_.default
        if mixes or func is torch.ops.aten._to_copy.default:
            self.sizes += [v.numel() for v in vectors]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE", PIECE)


def test_the_counter_sees_an_operation_on_two_types() -> None:
    with Mixed() as mixed:
        torch.zeros(100).add_(torch.zeros(100, dtype=torch.bfloat16))
        torch.zeros(50).bfloat16()
        torch.zeros(25).copy_(torch.zeros(25, dtype=torch.bfloat16))
    assert mixed.sizes == [100, 100, 50]


@pytest.mark.usefixtures("small_pieces")
def test_linear_widens_its_mean_a_piece_at_a_time() -> None:
    net = nn.Linear(10, 20)
    parameters = Parameters(net)
    predictor = Linear(parameters, torch.optim.SGD(net.parameters(), 0.1), PredictorConfig(direction="optimizer"))
    predictor.observe(torch.ones(parameters.count), TrainingState())
    with Mixed() as mixed:
        predictor.observe(torch.ones(parameters.count), TrainingState())
    assert mixed.sizes and max(mixed.sizes) == PIECE < parameters.count


@pytest.mark.usefixtures("small_pieces")
def test_a_correction_widens_its_residuals_a_piece_at_a_time() -> None:
    kept = ResidualStore(100, 1.0)
    for _ in range(2):
        kept.push(torch.ones(100), [1.0, 0.0])
    selection = kept.select([1.0, 0.0], 0.5, 5)
    with Mixed() as mixed:
        correction_P = kept.correction(selection)
    assert mixed.sizes and max(mixed.sizes) == PIECE
    assert correction_P is not None and torch.allclose(correction_P, torch.ones(100), atol=1e-6)


def test_pieces_cover_everything_once_and_leave_what_cannot_be_cut_whole(small_pieces: None) -> None:
    a, b = torch.zeros(50), torch.zeros(50)
    for n, (first, second) in enumerate(pieces.pieces(a, b)):
        first += 1
        second += n
    assert torch.equal(a, torch.ones(50)) and b.tolist() == [0.0] * 16 + [1.0] * 16 + [2.0] * 16 + [3.0] * 2
    turned = torch.zeros(10, 20).t()
    assert [t.shape for (t,) in pieces.pieces(turned)] == [turned.shape]
