"""Claims about the learned predictors: they recover known paths, know what they do not know, and cost what they say."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer_core.learning.parameters import Parameters
from trainer_core.learning.predictors import Proposal, Trainable, make_predictor
from trainer_core.learning.predictors.basis import combined, gram, grouped
from trainer_core.learning.predictors.encoding import GLOBAL, GROUP
from trainer_core.learning.predictors.history import Blocks
from trainer_core.learning.predictors.learned import Learned, loss_path
from trainer_core.learning.predictors.linear import Linear
from trainer_core.learning.predictors.members import Answer, fit_error, reaches, spread
from trainer_core.learning.predictors.mlp import MLPNetwork
from trainer_core.learning.predictors.rssm import RSSMNetwork
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.sections import PredictorConfig as Settings

SMALL: dict[str, Any] = {"deterministic_dim": 16, "stochastic_dim": 4, "num_categoricals": 4}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def slope() -> Tensor:
    return torch.randn(44, generator=torch.Generator().manual_seed(3))


def state(step: int, loss: float = 1.0) -> TrainingState:
    return TrainingState(step=step, loss=loss, loss_ema=loss, loss_sigma=0.1, update_norm=1.0, learning_rate=0.1)


def taught(config: PredictorConfig, growth: float, steps: int, *, units: int = 120, decay: float = 1.0) -> Any:
    """A predictor that saw ``steps`` steps of v, v rho, v rho^2 ..., trained ``units`` times over the last ones."""
    net = network()
    predictor: Any = make_predictor(config, Parameters(net), torch.optim.SGD(net.parameters(), 0.1))
    for step in range(steps):
        predictor.observe(slope() * growth**step, state(step, decay**step))
        begins = max(41, steps - units)
        for _ in range(units // (steps - begins) if isinstance(predictor, Trainable) and step >= begins else 0):
            predictor.train()
    return predictor


def error(proposal: Proposal | None, growth: float, start: int, steps: int) -> float:
    assert proposal is not None
    actual = slope() * sum(growth ** (start + k) for k in range(steps))
    return float((proposal.change(0, steps) - actual).norm() / actual.norm())


@pytest.mark.parametrize("growth", [1.0, 0.98])
@pytest.mark.parametrize(
    "settings", [{"type": "MLP"}, {"type": "MLP", "ensemble_size": 3}, {"type": "RSSM", **SMALL}], ids=str
)
def test_a_known_path_is_recovered_whether_straight_or_curved(settings: dict[str, Any], growth: float) -> None:
    predictor = taught(PredictorConfig(**settings), growth, 200, units=300 if settings["type"] == "MLP" else 120)
    proposal = predictor.propose(state(200))
    assert error(proposal, growth, 200, 20) < 0.12
    straight = taught(PredictorConfig(), 0.98, 200).propose(state(200))
    assert error(straight, 0.98, 200, 20) > 0.15, "a straight line is not enough for the curved one"


@pytest.mark.parametrize("kind", ["MLP", "RSSM"])
def test_before_it_has_learned_anything_it_proposes_the_mean_change(kind: Any) -> None:
    predictor = taught(PredictorConfig(type=kind, **SMALL), 1.0, 25, units=0)
    assert error(predictor.propose(state(25)), 1.0, 25, 20) < 1e-5
    net = network()
    assert make_predictor(PredictorConfig(type=kind), Parameters(net), torch.optim.SGD(net.parameters())).propose(
        state(0)
    ) is None  # fmt: skip


@pytest.mark.parametrize("kind", ["MLP", "RSSM"])
def test_it_learns_how_the_loss_goes_on(kind: Any) -> None:
    """A loss that falls by 1 % a step; the error band is wider the further away."""
    predictor = taught(PredictorConfig(type=kind, **SMALL), 1.0, 200, decay=0.99)
    path = predictor.propose(state(200, 0.99**200)).loss_path
    ratio, deviation = path.at(20)
    assert ratio == pytest.approx(0.99**20, abs=0.06)
    assert path.at(5)[1] < deviation < 0.5
    assert path.at(0) == (1.0, 0.0) and path.at(10_000) == path.at(len(path.ratio))


# -- the spread -----------------------------------------------------------------------------------------------------


def blocks(count: int, groups: int, generator: torch.Generator) -> Blocks:
    """Blocks whose change is b_0 going on for W = 10 steps, features around 0."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    cosines = torch.eye(4).expand(count, groups, 4, 4)
    cross = torch.zeros(count, groups, 2, 4)
    cross[:, :, 0, 0], cross[:, :, 1, 0] = 5.0, 10.0
    energy = torch.tensor([25.0, 100.0]).expand(count, groups, 2)
    share = torch.full((count, groups), 1 / (100.0 * groups))
    return Blocks(
        0.3 * random(count, GLOBAL),
        0.3 * random(count, groups, GROUP),
        cosines,
        cross,
        energy,
        share,
        torch.zeros(count),
    )


def fitted(net: Any, seen: Blocks, units: int) -> Any:
    adam = torch.optim.Adam(net.tensors, net.rate)
    for _ in range(units):
        adam.zero_grad()
        net.loss(seen, 5, 10).backward()
        adam.step()
    return net


def test_an_ensembles_spread_is_small_on_its_data_and_grows_with_the_distance_from_it() -> None:
    generator = torch.Generator().manual_seed(5)
    seen = blocks(40, 3, generator)
    net = fitted(MLPNetwork(5, generator), seen, 150)
    gram_JBB = torch.eye(4).expand(3, 4, 4)
    far = torch.randn(GLOBAL, generator=generator)
    with torch.no_grad():
        spreads = [spread(net.answer(seen, far * k, seen.group_NJG[0] * k), gram_JBB, 10) for k in (0.3, 1.0, 3.0)]
    assert spreads[0] < 0.1
    assert spreads[0] < spreads[1] < spreads[2] and spreads[2] > 3 * spreads[0]


def test_the_spread_is_the_distance_of_the_members_from_their_mean_over_its_norm() -> None:
    generator = torch.Generator().manual_seed(6)
    sizes = [5, 7]
    vectors_BP = torch.randn(4, 12, generator=generator)
    answer = Answer(
        torch.randn(3, 2, 4, generator=generator),
        -torch.rand(3, 2, generator=generator),
        torch.zeros(3, 1),
        torch.ones(3, 1),
    )
    norms_JB = gram(vectors_BP, sizes).diagonal(dim1=1, dim2=2).sqrt()
    scale_JB = norms_JB[:, :1] / norms_JB
    paths = [
        combined(vectors_BP, answer.u_EJB[e] * scale_JB * reaches(answer.log_rho_EJ[e], 10)[:, None], sizes)
        for e in range(3)
    ]
    mean = torch.stack(paths).mean(0)
    expected = torch.stack([(p - mean).square().sum() for p in paths]).mean().sqrt() / mean.norm()
    assert spread(answer, gram(vectors_BP, sizes), 10) == pytest.approx(float(expected), rel=1e-4)


def test_the_error_from_inner_products_is_the_error_of_the_vectors() -> None:
    """One group, so the whole's and the groups' error are the same: 1.1 times the error at W/2 and W, averaged."""
    generator = torch.Generator().manual_seed(7)
    basis_BP, actual_2P = torch.randn(4, 30, generator=generator), 9 * torch.randn(2, 30, generator=generator)
    norms_B = basis_BP.norm(dim=1)
    unit_BP, size = basis_BP / norms_B[:, None], norms_B[0]
    taken = Blocks(
        torch.zeros(1, 1, GLOBAL),
        torch.zeros(1, 1, 1, GROUP),
        (unit_BP @ unit_BP.T).expand(1, 1, 1, 4, 4),
        (actual_2P @ unit_BP.T / size).expand(1, 1, 1, 2, 4),
        (actual_2P.square().sum(1) / size**2).expand(1, 1, 1, 2),
        (size**2 / actual_2P[1].square().sum()).expand(1, 1, 1),
        torch.zeros(1, 1),
    )
    u_B, log_rho = torch.randn(4, generator=generator), torch.tensor(-0.1)
    errors = [
        (reaches(log_rho, k) * (u_B @ unit_BP) * size - actual).square().sum() / actual.square().sum()
        for k, actual in zip((5, 10), actual_2P, strict=True)
    ]
    assert max(errors) < 10, "the groups' errors are bounded by 10"
    got = fit_error(taken, u_B.expand(1, 1, 1, 4), log_rho.expand(1, 1, 1), 5, 10)
    assert float(got) == pytest.approx(1.1 * float(sum(errors)) / 2, rel=1e-4)


def test_the_loss_path_adds_up_blocks_and_their_variances() -> None:
    answer = Answer(
        torch.zeros(2, 1, 4), torch.zeros(2, 1), torch.tensor([[-0.2, -0.1], [-0.2, -0.3]]), torch.full((2, 2), 0.01)
    )
    path = loss_path(answer, 10)
    assert path.at(10)[0] == pytest.approx(math.exp(-0.2)) and path.at(20)[0] == pytest.approx(math.exp(-0.4))
    assert path.at(5)[0] == pytest.approx(math.exp(-0.1))
    assert path.at(10)[1] == pytest.approx(math.exp(-0.2) * 0.1)
    assert path.at(20)[1] == pytest.approx(math.exp(-0.4) * math.sqrt(0.01 + 0.01 + 0.01))


# -- the world model ------------------------------------------------------------------------------------------------


def test_the_documents_dimensions_are_the_networks() -> None:
    config = Settings(type="RSSM", deterministic_dim=24, stochastic_dim=6, num_categoricals=5)
    net = RSSMNetwork(config, torch.Generator().manual_seed(0))
    shapes = [tuple(t.shape) for t in net.tensors]
    assert (1, 24 + 24, 3 * 24) in shapes, "the gates of a GRU of 24"
    assert (1, 24, 6 * 5) in shapes and (1, 6 * 5, 24) in shapes, "6 variables of 5 classes, out and in"
    larger = Settings(type="RSSM", deterministic_dim=48, stochastic_dim=6, num_categoricals=5)
    assert RSSMNetwork.flops(larger, 10) > RSSMNetwork.flops(config, 10)


def test_the_world_model_learns_its_sequence() -> None:
    generator = torch.Generator().manual_seed(8)
    seen = blocks(24, 2, generator)
    net = RSSMNetwork(Settings(type="RSSM", **SMALL), generator)
    with torch.no_grad():
        before = float(net.loss(seen, 5, 10))
    fitted(net, seen, 50)
    free = 0.6  # the nats that cost 0.5 + 0.1 whatever they carry
    with torch.no_grad():
        assert float(net.loss(seen, 5, 10)) - free < 0.5 * (before - free)


# -- its place beside the training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MLP", "RSSM"])
def test_its_random_numbers_are_its_own(kind: Any) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    net = nn.Linear(3, 3)
    after_model = torch.get_rng_state()
    predictor: Any = make_predictor(
        PredictorConfig(type=kind, **SMALL), Parameters(net), torch.optim.SGD(net.parameters())
    )
    for step in range(60):
        predictor.observe(torch.full((12,), 0.1), state(step))
        predictor.train()
    predictor.propose(state(60))
    assert predictor.units > 0 and not torch.equal(before, after_model)
    assert torch.equal(torch.get_rng_state(), after_model)


@pytest.mark.parametrize(
    "settings", [{"type": "MLP", "ensemble_size": 3}, {"type": "RSSM", "ensemble_size": 2, **SMALL}]
)
def test_it_goes_on_from_its_saved_state_bit_for_bit(settings: dict[str, Any]) -> None:
    config = PredictorConfig(**settings)
    one, two = taught(config, 0.99, 83, units=42), taught(config, 1.0, 5, units=0)
    saved = one.state_dict()
    two.load_state_dict({key: _copied(value) for key, value in saved.items()})
    for step in range(83, 100):
        for predictor in (one, two):
            predictor.observe(slope() * 0.99**step, state(step))
            predictor.train()
    a, b = one.propose(state(100)), two.propose(state(100))
    assert torch.equal(a.step_P, b.step_P) and (a.growth, a.uncertainty, a.loss_path) == (
        b.growth,
        b.uncertainty,
        b.loss_path,
    )
    assert one.units == two.units > 50


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def test_blocks_with_a_number_that_is_none_are_not_learned_from() -> None:
    net = network()
    predictor = Learned(Parameters(net), torch.optim.SGD(net.parameters()), PredictorConfig(type="MLP"))
    for step in range(100):
        bad = 1e30 * float("inf") if 30 <= step < 35 else 1.0
        predictor.observe(slope() * bad, state(step))
        predictor.train()
        if step == 45:  # what a rollback would restore, without one
            predictor._basis.predicted_P.zero_()
    assert all(torch.isfinite(t).all() for net_, _ in predictor._networks for t in net_.tensors)


def test_many_small_tensors_are_learned_as_at_most_64_groups() -> None:
    assert grouped([1, 2, 3]) == [1, 2, 3]
    assert len(grouped([1] * 130)) <= 64 and sum(grouped([1] * 130)) == 130


@pytest.mark.parametrize(
    ("kind", "models"),
    [("Linear", 1.0), ("MLP", 7.0), ("RSSM", 7.0)],
)
def test_memory_is_what_the_docstring_says_in_multiples_of_the_model(kind: Any, models: float) -> None:
    """Linear: 1 where its mean is the slope that weights follow. The networks' size does not depend on the model's."""
    net = nn.Linear(500, 400)
    parameters = Parameters(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    predictor: Any = make_predictor(PredictorConfig(type=kind, **SMALL), parameters, optimizer)
    for step in range(25):
        predictor.observe(torch.full((parameters.count,), 0.1), state(step))
    assert isinstance(predictor, (Linear, Learned))
    assert _held(predictor, {id(parameters), id(optimizer)}) / (4 * parameters.count) == pytest.approx(models, abs=0.02)


def _held(value: Any, seen: set[int]) -> int:
    """Bytes of the tensors that an object holds, each storage once."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if new else 0
    if id(value) in seen or isinstance(value, (int, float, str, type(None))):
        return 0
    seen.add(id(value))
    if isinstance(value, dict):
        return sum(_held(item, seen) for item in value.values())
    if isinstance(value, (list, tuple)) or hasattr(value, "appendleft"):
        return sum(_held(item, seen) for item in value)
    return sum(_held(item, seen) for item in vars(value).values()) if hasattr(value, "__dict__") else 0
