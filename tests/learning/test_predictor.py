"""Claims about prediction: Linear recovers what is linear, its Adam slope is Adam's own step, residuals correct."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer_core.learning import pieces
from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors import Proposal, make_predictor
from trainer_core.learning.predictors.directions import adam_direction
from trainer_core.learning.predictors.linear import Linear
from trainer_core.learning.residuals import ResidualStore
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.errors import ConfigError

STATE = TrainingState()


def model() -> nn.Module:
    """Two layers, seeded."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def linear(config: PredictorConfig) -> tuple[Linear, Parameters]:
    """A predictor over SGD, which keeps no moments."""
    net = model()
    parameters = Parameters(net)
    return Linear(parameters, torch.optim.SGD(net.parameters(), 0.1), config), parameters


def test_a_linear_trajectory_is_recovered_exactly() -> None:
    predictor, parameters = linear(PredictorConfig())
    slope = torch.linspace(-1, 1, parameters.count)
    errors = [predictor.observe(slope.clone(), STATE).residual_norm for _ in range(12)]
    assert errors[0] is None
    assert all(e is not None and float(e) < 1e-6 for e in errors[1:])
    proposal = predictor.propose(STATE)
    assert proposal is not None
    assert torch.allclose(proposal.change(0, 20), 20 * slope, rtol=1e-5)
    assert proposal.step_norm == pytest.approx(float(slope.norm()))


def test_a_noisy_trajectory_is_averaged_over_its_window() -> None:
    predictor, parameters = linear(PredictorConfig(window=50))
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(-1, 1, parameters.count)
    for _ in range(400):
        predictor.observe(slope + torch.randn(parameters.count, generator=generator), STATE)
    proposal = predictor.propose(STATE)
    assert proposal is not None
    assert torch.nn.functional.cosine_similarity(proposal.step_P, slope, dim=0) > 0.95


def test_pure_noise_is_shrunk_towards_standing_still() -> None:
    predictor, parameters = linear(PredictorConfig(window=10))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        predictor.observe(torch.randn(parameters.count, generator=generator), STATE)
    proposal = predictor.propose(STATE)
    norm = 0.0 if proposal is None else proposal.step_norm
    assert norm < 0.25 * parameters.count**0.5


@pytest.mark.parametrize(
    ("growth", "groups"), [((1.0,), ()), ((0.9,), ()), ((0.9, 1.0, 1.02), (10, 7, 13))], ids=["straight", "bent", "cut"]
)
def test_how_far_a_path_moves_each_tensor_is_known_without_the_path(
    growth: tuple[float, ...], groups: tuple[int, ...]
) -> None:
    """The groups of a predictor of one's own may be cut through the tensors."""
    proposal = Proposal.along(torch.linspace(-1, 1, 30), growth, groups)
    sizes = [4, 12, 6, 8]
    expected = [float(part.norm()) for part in proposal.change(0, 50).split(sizes)]
    with Largest() as largest:
        found = proposal.lengths(sizes, 50)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert largest.made < 30


class Largest(TorchDispatchMode):
    """Scalars of the largest tensor that was made."""

    made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, Tensor):
                self.made = max(self.made, tensor.numel())
        return out


def test_nothing_is_proposed_before_anything_was_seen_or_when_nothing_moves() -> None:
    predictor, parameters = linear(PredictorConfig())
    assert predictor.propose(STATE) is None
    predictor.observe(torch.zeros(parameters.count), STATE)
    assert predictor.propose(STATE) is None


def test_the_residual_is_actual_minus_predicted() -> None:
    predictor, parameters = linear(PredictorConfig())
    first, second = torch.ones(parameters.count), torch.full((parameters.count,), 3.0)
    assert predictor.observe(first, STATE).residual_P is None
    seen = predictor.observe(second, STATE)
    assert seen.residual_P is not None and seen.residual_norm is not None
    assert torch.equal(seen.residual_P, second - first)
    assert float(seen.residual_norm) == pytest.approx(float(torch.linalg.vector_norm(second)) * 2 / 3)


def test_what_is_observed_in_pieces_is_what_is_observed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole, parameters), (cut, _) = (
        linear(PredictorConfig(direction="optimizer")),
        linear(PredictorConfig(direction="optimizer")),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        delta = torch.randn(parameters.count, generator=generator)
        expected = whole.observe(delta.clone(), STATE)
        with monkeypatch.context() as patch:
            patch.setattr(pieces, "_PIECE", 3)
            seen = cut.observe(delta.clone(), STATE)
    assert seen.residual_P is not None and expected.residual_P is not None
    assert torch.equal(seen.residual_P, expected.residual_P)
    assert seen.residual_norm is not None and expected.residual_norm is not None
    assert float(seen.residual_norm) == pytest.approx(float(expected.residual_norm), rel=1e-6)
    assert torch.equal(cut.state_dict()["slope"], whole.state_dict()["slope"])


def test_a_predictor_goes_on_from_its_saved_state() -> None:
    (one, parameters), (two, _) = linear(PredictorConfig()), linear(PredictorConfig())
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        one.observe(torch.randn(parameters.count, generator=generator), STATE)
    two.load_state_dict(one.state_dict())
    delta = torch.randn(parameters.count, generator=generator)
    one.observe(delta.clone(), STATE)
    two.observe(delta.clone(), STATE)
    a, b = one.propose(STATE), two.propose(STATE)
    assert a is not None and b is not None and torch.equal(a.step_P, b.step_P)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_the_adam_slope_is_the_step_adamw_would_take_with_the_same_moments(steps: int, amsgrad: bool) -> None:
    """A further step whose gradient is m_hat / c1 would move the moments; so the step just taken is compared."""
    net = model()
    parameters = Parameters(net)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.0, amsgrad=amsgrad)
    for step in range(steps):
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        before = parameters.read(parameters.empty())
        optimizer.step()
    taken = parameters.read(parameters.empty()) - before
    direction = adam_direction(parameters, optimizer, noise_mask=0.0)
    assert direction is not None
    assert torch.allclose(direction, taken, rtol=1e-3, atol=2e-8)


@pytest.mark.parametrize(("mask", "share"), [(0.0, 1.0), (0.3, 0.6976), (0.4, 0.58), (0.8, 0.328)])
def test_the_noise_mask_shortens_a_coordinate_by_the_noise_in_its_gradient(mask: float, share: float) -> None:
    """Of Adam's step: all where the gradient is steady (mean = rms), nothing where it is noise, ``share`` at 0.4."""
    parameter = nn.Parameter(torch.zeros(3))
    holder = nn.Module()
    holder.w = parameter
    optimizer = torch.optim.AdamW([parameter], 1e-2, weight_decay=0.0)
    parameter.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[parameter]["step"].fill_(1e6)
    optimizer.state[parameter]["exp_avg"].copy_(torch.tensor([1.0, 1e-3, 0.4]))
    optimizer.state[parameter]["exp_avg_sq"].fill_(1.0)
    masked = adam_direction(Parameters(holder), optimizer, noise_mask=mask)
    assert masked is not None
    steady, noise, between = (masked / -1e-2).tolist()
    assert steady == pytest.approx(1.0) and between == pytest.approx(0.4 * share, rel=1e-3)
    assert noise == pytest.approx(1e-3 if mask == 0 else 0.0, abs=2e-8)


def test_a_coordinate_without_a_gradient_does_not_move() -> None:
    parameter = nn.Parameter(torch.ones(2))
    holder = nn.Module()
    holder.w = parameter
    optimizer = torch.optim.AdamW([parameter], 1e-2, weight_decay=0.0)
    parameter.grad = torch.zeros(2)
    optimizer.step()
    found = adam_direction(Parameters(holder), optimizer, noise_mask=0.5)
    assert found is not None and found.tolist() == [0.0, 0.0]


def test_neighbours_are_computed_as_one_where_their_scalars_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups with other rates, a tensor that began later and one that never had a gradient: bit for bit the same
    as each tensor by itself."""
    tensors = [nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(size))) for size in range(3, 9)]
    holder = nn.ParameterList(tensors)
    optimizer = torch.optim.AdamW([{"params": tensors[:2], "lr": 0.1}, {"params": tensors[2:], "lr": 0.3}])
    for step in range(4):
        for j, p in enumerate(tensors):
            p.grad = torch.sin(p.detach() * (step + j)) if j != 5 and not (j == 3 and step == 0) else None
        optimizer.step()
    parameters = Parameters(holder)
    together = adam_direction(parameters, optimizer, noise_mask=0.1)
    monkeypatch.setattr(pieces, "_PIECE", 1)
    alone = adam_direction(parameters, optimizer, noise_mask=0.1)
    assert together is not None and alone is not None and torch.equal(together, alone)
    assert (together == 0).any() and torch.equal(together[-8:], torch.zeros(8)) and together[:-8].any()


def test_an_optimizer_without_moments_has_no_adam_slope_and_auto_falls_back_to_the_window() -> None:
    net = model()
    parameters = Parameters(net)
    assert adam_direction(parameters, torch.optim.SGD(net.parameters(), 0.1), 0.0) is None
    only = Linear(parameters, torch.optim.SGD(net.parameters(), 0.1), PredictorConfig(direction="optimizer"))
    only.observe(torch.ones(parameters.count), STATE)
    assert only.propose(STATE) is None


def test_an_ensemble_of_straight_lines_is_refused_with_what_to_do() -> None:
    net = model()
    config = PredictorConfig(type="Linear", ensemble_size=3)
    with pytest.raises(ConfigError, match=r"ensemble_size = 3: .*use 1, or type = 'MLP' or 'RSSM'"):
        make_predictor(config, Parameters(net), torch.optim.SGD(net.parameters(), 0.1))


def test_parameters_without_adams_moments_take_the_window_slope_and_the_others_adams() -> None:
    """As under Muon with AdamW for the rest: the first tensor has moments, the others have none."""
    net = model()
    parameters = Parameters(net)
    optimizer = torch.optim.AdamW([parameters.tensors[0]], 1e-2, weight_decay=0.0)
    parameters.tensors[0].grad = torch.ones_like(parameters.tensors[0])
    optimizer.step()
    predictor = Linear(parameters, optimizer, PredictorConfig())
    for _ in range(5):
        predictor.observe(torch.full((parameters.count,), 0.25), STATE)
    proposal = predictor.propose(STATE)
    assert proposal is not None
    first, *others = proposal.step_P.split(parameters.sizes)
    assert torch.allclose(first, torch.full_like(first, -1e-2), rtol=1e-3)
    assert all(torch.allclose(part, torch.full_like(part, 0.25)) for part in others)


# -- residuals ------------------------------------------------------------------------------------------------------


def store(*entries: tuple[list[float], list[float]], memory_mb: float = 1.0) -> ResidualStore:
    """A store of (residual, state) pairs."""
    made = ResidualStore(len(entries[0][0]), memory_mb)
    for residual, state in entries:
        made.push(torch.tensor(residual), state)
    return made


def test_the_correction_is_the_weighted_sum_of_the_similar_residuals() -> None:
    made = store(([1.0, 0.0], [1.0, 0.0]), ([0.0, 2.0], [0.0, 1.0]))
    selection = made.select([1.0, 1.0], threshold=0.7, top_k=5)
    assert (selection.history, selection.similar) == (2, 2)
    assert [w.weight for w in selection.weights] == pytest.approx([0.5, 0.5])
    correction = made.correction(selection)
    assert correction is not None and correction.tolist() == pytest.approx([0.5, 1.0])
    alone = made.select([1.0, 0.1], threshold=0.7, top_k=5)
    assert [(w.residual_id, w.weight) for w in alone.weights] == [(0, 1.0)]


def test_similarity_must_be_strictly_above_the_threshold() -> None:
    made = store(([1.0], [1.0, 0.0]))
    assert made.select([1.0, 0.0], threshold=1.0, top_k=5).similar == 0
    assert made.select([-1.0, 0.0], threshold=0.0, top_k=5).weights == ()
    assert made.correction(made.select([-1.0, 0.0], threshold=0.0, top_k=5)) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 8), st.integers(0, 10_000))
def test_weights_are_positive_normalised_sorted_and_at_most_top_k(count: int, top_k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    made = ResidualStore(3, 1.0)
    for _ in range(count):
        made.push(torch.randn(3, generator=generator), torch.randn(4, generator=generator).tolist())
    selection = made.select(torch.randn(4, generator=generator).tolist(), 0.1, top_k)
    weights = [w.weight for w in selection.weights]
    assert len(weights) == min(top_k, selection.similar)
    assert weights == sorted(weights, reverse=True) and all(w > 0 for w in weights)
    assert not weights or sum(weights) == pytest.approx(1.0)
    assert all(w.similarity > 0.1 for w in selection.weights)


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    made = ResidualStore(1024, memory_mb=10 * 2 * 1024 / 2**20)
    assert made.capacity == 10
    for number in range(25):
        made.push(torch.full((1024,), float(number)), [1.0, float(number)])
    assert len(made) == 10
    ids = {w.residual_id for w in made.select([1.0, 24.0], -1.0, 100).weights}
    assert ids <= set(range(15, 25)) and 24 in ids


def test_a_model_too_large_for_the_memory_keeps_none_and_nothing_breaks() -> None:
    made = ResidualStore(10_000_000, memory_mb=1.0)
    made.push(torch.zeros(10_000_000), [1.0])
    assert made.capacity == len(made) == 0
    assert made.correction(made.select([1.0], 0.5, 5)) is None


def test_a_state_that_is_no_number_is_neither_kept_nor_matched() -> None:
    made = store(([1.0], [1.0, 0.0]))
    made.push(torch.ones(1), [float("nan"), 0.0])
    assert len(made) == 1
    assert made.select([float("inf"), 0.0], 0.0, 5).weights == ()


def test_a_store_comes_back_from_its_state() -> None:
    made = store(([1.0, 0.0], [1.0, 0.0]), ([0.0, 2.0], [0.0, 1.0]))
    again = ResidualStore(2, 1.0)
    again.load_state_dict(made.state_dict())
    selection = again.select([0.0, 1.0], 0.7, 5)
    correction: Tensor | None = again.correction(selection)
    assert [w.residual_id for w in selection.weights] == [1]
    assert correction is not None and correction.tolist() == [0.0, 2.0]


def test_a_full_store_takes_a_new_residual_without_touching_the_others() -> None:
    made = ResidualStore(4, memory_mb=3 * 2 * 4 / 2**20)
    for number in range(5):
        made.push(torch.full((4,), float(number)), [float(number == k) for k in range(5)])
    for number in (2, 3, 4):
        state = [float(number == k) for k in range(5)]
        correction = made.correction(made.select(state, 0.9, 1))
        assert correction is not None and correction.tolist() == [float(number)] * 4
