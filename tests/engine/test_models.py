"""Claims about what can be trained: any module and first-order optimizer, and one sentence for what cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Rig, batch_of, covered, network
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import resolve
from trainer_core.spec.records import StepRecord

Parameters = list[nn.Parameter]


class Shared(nn.Module):
    """Tied weights, a frozen layer, an embedding-like table that no batch reaches, and its own forward signature."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.b.weight = self.a.weight
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(self.frozen(x))))))  # type: ignore[no-any-return]


def groups(ps: Parameters) -> torch.optim.Optimizer:
    """Two groups with rates of their own, no decay on vectors."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in ps if p.dim() > 1], "lr": 3e-3},
            {"params": [p for p in ps if p.dim() <= 1], "lr": 1e-3, "weight_decay": 0.0},
        ]
    )


OPTIMIZERS: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "AdamW": lambda ps: torch.optim.AdamW(ps, 3e-3),
    "Adam amsgrad": lambda ps: torch.optim.Adam(ps, 3e-3, amsgrad=True),
    "SGD": lambda ps: torch.optim.SGD(ps, 0.05),
    "SGD momentum": lambda ps: torch.optim.SGD(ps, 0.02, momentum=0.9, nesterov=True),
    "RMSprop": lambda ps: torch.optim.RMSprop(ps, 1e-3),
    "Adagrad": lambda ps: torch.optim.Adagrad(ps, 1e-2),
    "NAdam": lambda ps: torch.optim.NAdam(ps, 1e-3),
    "several groups": groups,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_first_order_optimizer_goes_through_every_phase(tmp_path: Path, name: str) -> None:
    rig = Rig(tmp_path, steps=60, optimizer=OPTIMIZERS[name], checkpoint_every=20).begin().finish()
    steps = rig.of(StepRecord)
    assert len({s.phase for s in steps}) == 4
    assert covered(rig.records) == {0: (1, 60)}
    first, last = steps[0].loss_ema, steps[-1].loss_ema
    assert first is not None and last is not None and last < first


def test_each_group_keeps_its_own_share_of_the_rate(tmp_path: Path) -> None:
    rig = Rig(tmp_path, optimizer=groups, initial_lr=6e-3).begin().until_step(3)
    assert [g["lr"] for g in rig.optimizer.param_groups] == pytest.approx([6e-3, 2e-3])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: network(0.3),
    "batch norm": lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
    "tied and frozen": Shared,
    "bfloat16 part": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_module_goes_through_every_phase(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    rig = Rig(tmp_path, model=MODELS[name](), steps=40).begin().finish()
    assert len({s.phase for s in rig.of(StepRecord)}) == 4


def test_frozen_weights_never_move(tmp_path: Path) -> None:
    model = Shared()
    frozen = model.frozen.weight.clone()
    Rig(tmp_path, model=model, steps=40).begin().finish()
    assert torch.equal(model.frozen.weight, frozen)
    assert model.b.weight is model.a.weight


def test_probes_touch_no_running_statistics_and_leave_the_training_mode(tmp_path: Path) -> None:
    rig = Rig(tmp_path, model=MODELS["batch norm"]()).begin().until_step(8)
    norm = rig.model[1]
    kept = norm.running_mean.clone()
    rig.engine.samples(batch_of(0))
    assert torch.equal(norm.running_mean, kept) and norm.training


def test_a_layer_the_optimizer_does_not_hold_is_neither_moved_nor_measured(tmp_path: Path) -> None:
    model = network()
    rig = Rig(tmp_path, model=model, optimizer=lambda ps: torch.optim.AdamW(ps[2:], 3e-3), steps=60).begin()
    first = model[0].weight.clone()
    rig.finish()
    assert torch.equal(model[0].weight, first)
    assert rig.engine.parameters.names == ("3.weight", "3.bias")
    norms = [s.grad_norm for s in rig.of(StepRecord) if s.grad_norm is not None]
    assert max(norms) < 3 * norms[0], "gradients of unheld weights do not pile up in the norm"


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        F.cross_entropy,
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
    ],
    ids=["criterion module", "per sample", "functional", "function of model and batch"],
)
def test_any_form_of_loss_trains_the_same_weights(tmp_path: Path, loss: Callable[..., Tensor]) -> None:
    locked = {"full_steps": 1000}
    reference = Rig(tmp_path / "a", steps=20, **locked).begin().finish()
    rig = Rig(tmp_path / "b", steps=20, loss=loss, **locked).begin().finish()
    assert torch.allclose(rig.weights(), reference.weights(), atol=1e-6)


def test_locked_in_full_the_engine_trains_exactly_as_a_plain_loop(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=30, full_steps=1000).begin()
    torch.manual_seed(7)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    rig.model.load_state_dict(model.state_dict())
    rig.finish()
    for index in range(30):
        inputs, labels = batch_of(index)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels, reduction="none").mean().backward()
        optimizer.step()
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]).double(), rig.weights())


def test_the_recorded_gradient_norm_is_torchs_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin()
    record = rig.step()
    total = torch.nn.utils.get_total_norm([p.grad for p in rig.model.parameters() if p.grad is not None])
    assert record.grad_norm == pytest.approx(float(total), rel=1e-5)
    assert record.layer_grad_norms is not None
    assert sum(n * n for n in record.layer_grad_norms) ** 0.5 == pytest.approx(float(total), rel=1e-5)
    assert rig.engine.parameters.layers == ("0", "3")


def test_clipping_bounds_the_step_and_the_record_says_the_norm_before_it(tmp_path: Path) -> None:
    make = {"optimizer": lambda ps: torch.optim.SGD(ps, 1.0), "full_steps": 1000}
    rig = Rig(tmp_path, gradient_clip_norm=0.01, **make).begin()
    record = rig.step()
    assert record.grad_norm is not None and record.grad_norm > 0.1
    assert record.update_norm == pytest.approx(0.01, rel=1e-3)


def test_bf16_autocast_trains(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=40, use_mixed_precision=True).begin().finish()
    assert all(s.loss is not None and s.loss == s.loss for s in rig.of(StepRecord))


class Batches:
    """Bad batches by name."""

    empty = (torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
    not_a_pair = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("loss", "batch", "words"),
    [
        (F.cross_entropy, Batches.empty, "the batch is empty"),
        (nn.CrossEntropyLoss(), Batches.not_a_pair, r"must be \(inputs, targets\)"),
        (lambda model, batch: 3.0, batch_of(0), "loss_fn returned float"),
        (lambda model, batch: model(batch[0]), batch_of(0), r"loss_fn returned \(32, 3\)"),
    ],
    ids=["empty", "not a pair", "a float", "a matrix"],
)
def test_a_batch_or_loss_that_cannot_be_used_is_one_clear_sentence(
    tmp_path: Path, loss: Callable[..., Any], batch: Any, words: str
) -> None:
    rig = Rig(tmp_path, loss=loss).begin()
    weights = rig.weights()
    with pytest.raises(UserError, match=words):
        rig.engine.step(batch)
    assert torch.equal(rig.weights(), weights) and rig.engine.step_count == 0


def test_what_cannot_be_trained_is_refused_at_once(tmp_path: Path) -> None:
    def refused(words: str, error: type[UserError] = UserError, **parts: Any) -> None:
        with pytest.raises(error, match=words) as caught:
            Rig(tmp_path, **parts)
        assert "\n" not in str(caught.value)

    frozen = network().requires_grad_(False)
    other = network()
    refused("LBFGS needs a closure", optimizer=lambda ps: torch.optim.LBFGS(ps))
    refused("no trainable parameters", model=frozen)
    refused("made for another model", optimizer=lambda ps: torch.optim.SGD(other.parameters(), 0.1))
    refused("no shape yet", model=nn.Sequential(nn.LazyLinear(3)))
    refused("must be a function", loss=3)
    assert resolve({"preset": "medium"}).config.predictor_config.type == "RSSM"
