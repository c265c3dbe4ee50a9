"""Claims about the optimizers: Muon and AdamW as one, and an orthogonaliser that is predicted while it is right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import EAGER, NEEDS_MUON, Rig, covered, same
from trainer_core import spec
from trainer_core.engine.snapshot import copied
from trainer_core.learning.optimizers import Joined, body_matrices, make_optimizer
from trainer_core.learning.orthogonaliser import FactoredMuon, inverse_root
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord
from trainer_core.tasks import make_task

COEFFICIENTS = (3.4445, -4.7750, 2.0315)

pytestmark = NEEDS_MUON


class Body(nn.Module):
    """An input layer, two matrices of the body, an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8)
        self.wide, self.tall, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.table.weight.sum(0)
        y = F.relu(self.wide(y))
        return self.head(F.relu(self.tall(y)))  # type: ignore[no-any-return]


def built(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """The optimizer of a configuration."""
    return make_optimizer(resolve({"optimizer": {"type": "Muon"} | settings, "initial_lr": 3e-3}).config, model)


def muon_rig(folder: Path, **settings: Any) -> Rig:
    """A run on ``Body`` with Muon; ``settings`` of the optimizer and of the engine together."""
    torch.manual_seed(3)
    model = Body()
    names = ("muon_lr", "muon_scale", "orthogonaliser_every", "orthogonaliser_confidence")
    own = {name: settings.pop(name) for name in names if name in settings}
    return Rig(folder, model=model, optimizer=lambda _: built(model, **own), initial_lr=3e-3, **settings)


def gradients(model: nn.Module, step: int) -> None:
    """Deterministic gradients that turn slowly."""
    for i, p in enumerate(model.parameters()):
        a, b = (torch.randn(p.shape, generator=torch.Generator().manual_seed(2 * i + k)) for k in (0, 1))
        p.grad = a + 0.02 * step * b


def test_muon_takes_the_matrices_of_the_body_and_adamw_the_rest() -> None:
    model = Body()
    matrices, rest = body_matrices(model)
    assert [id(p) for p in matrices] == [id(model.wide.weight), id(model.tall.weight)]
    assert len(rest) == len(list(model.parameters())) - 2
    model.tall.requires_grad_(False)
    assert [id(p) for p in body_matrices(model)[0]] == [id(model.wide.weight)]


def test_a_gpts_embeddings_head_norms_and_biases_are_adamws() -> None:
    model = make_task("code_lm", resolve({}).config, Path(spec.__file__).parent, torch.device("cpu")).model()
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = {names[id(p)] for p in body_matrices(model)[0]}
    assert matrices == {f"blocks.{i}.{part}.weight" for i in range(3) for part in ("qkv", "out", "up", "down")}


def test_a_matrix_tied_to_an_embedding_is_not_muons() -> None:
    model = Body()
    model.wide = nn.Linear(8, 5)
    model.wide.weight = model.table.weight  # type: ignore[assignment]
    assert all(p is not model.table.weight for p in body_matrices(model)[0])


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_the_joined_optimizer_steps_as_torchs_own_two(scale: str) -> None:
    torch.manual_seed(0)
    model, twin = Body(), Body()
    twin.load_state_dict(model.state_dict())
    ours = built(model, muon_lr=0.02, muon_scale=scale, weight_decay=0.1)
    matrices, rest = body_matrices(twin)
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn=scale)
    adamw = torch.optim.AdamW(rest, 3e-3, weight_decay=0.1)
    for step in range(12):
        gradients(model, step)
        gradients(twin, step)
        ours.step()
        muon.step()
        adamw.step()
    start = dict(Body().named_parameters())
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        moved = float((q - start[name]).detach().norm())
        assert float((p - q).detach().norm()) < 0.01 * moved, f"{name}: only bfloat16's rounding apart"


def test_the_factor_is_torchs_iteration_in_a_smaller_matrix() -> None:
    u = torch.randn(6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = u / u.norm()
    factor = inverse_root(x @ x.T, COEFFICIENTS, 5)
    a, b, c = COEFFICIENTS
    y = x
    for _ in range(5):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    assert torch.allclose(factor @ x, y, atol=1e-10)
    assert 0.6 < float(torch.linalg.svdvals(factor @ x).min()) < float(torch.linalg.svdvals(factor @ x).max()) < 1.3


@pytest.mark.parametrize("settings", [{}, {"orthogonaliser_every": 4, "orthogonaliser_confidence": 0.0}])
def test_a_saved_optimizer_goes_on_bit_for_bit(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, other = Body(), Body()
    first, second = built(model, **settings), built(other, **settings)
    for step in range(7):
        gradients(model, step)
        first.step()
    other.load_state_dict(model.state_dict())
    second.load_state_dict(copied(first.state_dict()))
    for step in range(7, 14):
        for m, o in ((model, first), (other, second)):
            gradients(m, step)
            o.param_groups[0]["lr"] = o.param_groups[1]["lr"] = 1e-3
            o.step()
    assert same(model.state_dict(), other.state_dict()) and same(first.state_dict(), second.state_dict())


def test_a_rate_set_on_a_group_is_the_rate_of_the_step_also_after_a_restore() -> None:
    model = Body()
    optimizer = built(model)
    gradients(model, 0)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_each_part_has_its_own_rate_under_one_schedule(tmp_path: Path) -> None:
    rig = muon_rig(tmp_path, muon_lr=0.03).begin().until_step(2)
    assert [g["lr"] for g in rig.optimizer.param_groups] == pytest.approx([3e-3, 0.03])
    rig.engine.schedule.scale = 0.1
    rig.step()
    assert [g["lr"] for g in rig.optimizer.param_groups] == pytest.approx([3e-4, 3e-3])


def test_matching_adamws_size_takes_twice_its_rate_unless_told() -> None:
    assert built(Body(), muon_scale="match_rms_adamw").param_groups[1]["lr"] == pytest.approx(6e-3)
    assert built(Body()).param_groups[1]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("every", [1, 4])
def test_muon_goes_through_every_phase_and_lowers_the_loss(tmp_path: Path, every: int) -> None:
    rig = muon_rig(tmp_path, steps=60, orthogonaliser_every=every, muon_lr=0.005, checkpoint_every=20)
    steps = rig.begin().finish().of(StepRecord)
    assert len({s.phase for s in steps}) == 4 and covered(rig.records) == {0: (1, 60)}
    assert steps[0].loss_ema is not None and steps[-1].loss_ema is not None
    assert steps[-1].loss_ema < steps[0].loss_ema
    measured = [s for s in steps if s.orthogonaliser_confidence is not None]
    assert bool(measured) == (every > 1)


def test_a_prediction_moves_the_matrices_of_muon_as_well_as_the_rest(tmp_path: Path) -> None:
    rig = muon_rig(tmp_path).begin().until_phase(Phase.PREDICT, 1)
    flight = rig.engine.flight
    assert flight is not None
    change = rig.engine.parameters.views(flight.proposal.change(0, 1))
    moved = {name: float(v.norm()) for name, v in zip(rig.engine.parameters.names, change, strict=True)}
    assert min(moved.values()) > 0, f"Adam's moments for some, the recent window's slope for others: {moved}"


@pytest.mark.parametrize("every", [1, 3])
def test_a_resumed_muon_run_is_the_uninterrupted_one(tmp_path: Path, every: int) -> None:
    settings: dict[str, Any] = {"orthogonaliser_every": every, "orthogonaliser_confidence": 0.0, "steps": 40}
    whole = muon_rig(tmp_path / "whole", **settings).begin().finish()
    first = muon_rig(tmp_path / "cut", **settings).begin().until_phase(Phase.PREDICT, 2)
    first.session.save_checkpoint("cut here")
    second = muon_rig(tmp_path / "cut", **settings)
    second.session.resume(0, first.engine.step_count, "resumed")
    second.finish()
    assert torch.equal(second.weights(), whole.weights())


def test_an_undone_prediction_gives_the_factors_back(tmp_path: Path) -> None:
    rig = muon_rig(tmp_path, orthogonaliser_every=3).begin().until_phase(Phase.CORRECT, 1)
    kept = rig.engine.snapshot
    assert kept is not None and kept.optimizer is not None
    assert not same(rig.optimizer.state_dict()["state"], kept.optimizer["state"]), "the step of CORRECT moved it"
    rig.engine.snapshot.restore(rig.engine.parameters, rig.engine.model, rig.engine.optimizer)  # type: ignore[union-attr]
    assert same(rig.optimizer.state_dict()["state"], kept.optimizer["state"])
    assert rig.engine.muon is not None and "factor" in rig.optimizer.state[rig.model.wide.weight]


def steady(every: int, least: float) -> tuple[nn.Module, FactoredMuon]:
    """A Muon alone, on one model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False))
    return model, FactoredMuon(list(model.parameters()), every, least, lr=0.01, weight_decay=0.0)


def drive(model: nn.Module, muon: FactoredMuon, steps: range, turning: float) -> list[bool]:
    """Step on gradients that are the same (0) or new each time (1); returns which steps were predicted."""
    used = []
    for step in steps:
        for i, p in enumerate(model.parameters()):
            fixed = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
            new = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 + 10 * step + i))
            p.grad = (1 - turning) * fixed + turning * new
        muon.step()
        used.append(muon.predicted)
        if muon.confidence is not None:
            muon.trust(float(muon.confidence))
    return used


def test_a_factor_is_shared_only_after_it_was_measured_to_be_right() -> None:
    model, muon = steady(4, 0.9)
    used = drive(model, muon, range(13), 0.0)
    assert used == [False] * 5 + [True] * 3 + [False] + [True] * 3 + [False]
    assert muon.confidence is not None and float(muon.confidence) > 0.99


def test_low_confidence_falls_back_and_prediction_begins_again_when_it_is_right() -> None:
    model, muon = steady(3, 0.9)
    assert not any(drive(model, muon, range(30), 1.0)), "new gradients each step: nothing to reuse"
    again = drive(model, muon, range(30, 330), 0.0)
    assert again[-4:].count(True) >= 2, "the same gradient for long: two of three steps are predicted"


def test_while_it_is_not_trusted_every_step_is_the_exact_one() -> None:
    model, muon = steady(4, 1.0)
    twin, exact = steady(1, 1.0)
    assert not any(drive(model, muon, range(10), 0.5))
    drive(twin, exact, range(10), 0.5)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_reused_factor_moves_the_weights_by_the_size_it_had() -> None:
    model, muon = steady(4, 0.5)
    drive(model, muon, range(5), 0.0)
    norms = []
    for step in range(5, 8):
        before = [p.detach().clone() for p in model.parameters()]
        assert all(drive(model, muon, range(step, step + 1), 0.3))
        norms.append([float((p - b).detach().norm()) for p, b in zip(model.parameters(), before, strict=True)])
    sizes = [float(muon.state[p]["factor_norm"]) for p in model.parameters()]
    assert norms == [pytest.approx([0.01 * 2**0.5 * sizes[0], 0.01 * sizes[1]], rel=1e-3)] * 3


def test_a_users_own_muon_trains_a_model_of_matrices(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    rig = Rig(tmp_path, model=model, steps=40, optimizer=lambda ps: torch.optim.Muon(ps, lr=0.01)).begin().finish()
    steps = rig.of(StepRecord)
    assert len({s.phase for s in steps}) == 4 and (steps[-1].loss_ema or 9) < (steps[0].loss_ema or 0)
    assert all(s.orthogonaliser_predicted is None for s in steps)


def test_a_model_without_a_matrix_in_its_body_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="no weight matrix between") as refused:
        built(nn.Sequential(nn.Linear(8, 3)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("AdamW", torch.optim.AdamW), ("Adam", torch.optim.Adam), ("SGD", torch.optim.SGD), ("Muon", Joined)],
)
def test_the_configured_type_is_what_is_built(name: str, kind: type[torch.optim.Optimizer]) -> None:
    settings = {"type": name, "beta1": 0.8, "weight_decay": 0.05}
    optimizer = make_optimizer(
        resolve({"optimizer": settings, "initial_lr": 2e-3} | {"warmup_steps": EAGER["warmup_steps"]}).config, Body()
    )
    group = optimizer.param_groups[0]
    assert type(optimizer) is kind and (group["lr"], group["weight_decay"]) == (2e-3, 0.05)
    assert (group["momentum"] if name == "SGD" else group["betas"][0]) == 0.8
    assert name == "SGD" or group["fused"], "one kernel where torch has it"
