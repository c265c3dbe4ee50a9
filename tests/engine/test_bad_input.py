"""Claims about input nobody hopes for: it trains, or is refused in one sentence before a weight moves."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import EAGER, NEEDS_MUON, Rig, batch_of, network, per_sample
from trainer_core.engine.predicting import undo
from trainer_core.hybrid_trainer import HybridTrainer
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.commands import SetThreshold
from trainer_core.spec.errors import ConfigError, TrainingFailed, UserError
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, StepRecord, ValidationMeasured

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def refused(rig: Rig, batch: Any, words: str, error: type[Exception] = UserError) -> None:
    """The first step is refused with one sentence, and nothing has moved."""
    before = rig.weights()
    with pytest.raises(error, match=words) as caught:
        rig.engine.step(batch)
    assert "\n" not in str(caught.value)
    assert torch.equal(rig.weights(), before) and rig.engine.step_count == 0


def test_a_loss_that_is_always_nan_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=lambda model, batch: per_sample(model, batch) * math.nan).begin()
    with pytest.raises(TrainingFailed, match=r"automatic rollbacks \(max_recoveries\) did not help") as failed:
        rig.until(lambda: False)
    assert "\n" not in str(failed.value)
    assert all(s.loss is not None and math.isnan(s.loss) for s in rig.of(StepRecord))
    assert rig.engine.attempt == 5 and rig.engine.recoveries == 6


def test_a_loss_that_is_nan_once_costs_a_rollback_and_no_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=40, scales={5: math.nan}).begin().finish()
    assert rig.session.ended == ("finished", "all 40 steps taken") and rig.engine.attempt == 1
    assert torch.isfinite(rig.weights()).all()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda model, batch: per_sample(model, batch).detach(), "does not depend on any trainable parameter"),
        (lambda model, batch: torch.zeros(()), "does not depend on any trainable parameter"),
        (lambda model, batch: (model(batch[0]).argmax(1) == batch[1]).sum(), r"a tensor of torch\.int64"),
        (lambda model, batch: model(batch[0]).sum().to(torch.complex64), r"a tensor of torch\.complex64"),
        (lambda model, batch: per_sample(model, batch)[:0], "returned no value"),
        (lambda model, batch: per_sample(model, batch).mean().to("meta"), "the loss is on meta and the model on cpu"),
    ],
    ids=["detached", "constant", "a count", "complex", "no value", "another device"],
)
def test_a_loss_without_a_gradient_is_refused(tmp_path: Path, loss: Callable[..., Tensor], words: str) -> None:
    refused(Rig(tmp_path, loss=loss).begin(), batch_of(0), words)


@pytest.mark.parametrize(
    "batch",
    [(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)), {"x": torch.zeros(0, 8)}, [torch.zeros(0)]],
    ids=["pair", "dictionary", "list"],
)
def test_a_batch_of_no_samples_is_refused(tmp_path: Path, batch: Any) -> None:
    refused(Rig(tmp_path).begin(), batch, "the batch is empty")


def test_an_empty_batch_in_the_middle_stops_there_and_training_can_go_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_step(7)
    with pytest.raises(UserError, match="the batch is empty"):
        rig.engine.step((torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)))
    rig.until_step(20)
    assert [s.batch for s in rig.of(StepRecord)] == list(range(1, len(rig.of(StepRecord)) + 1))


class Table(nn.Module):
    """An embedding with sparse gradients before an output layer; the tokens are the signs of the inputs."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4, sparse=sparse)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x > 0).long() + 2 * torch.arange(8)
        return self.head(self.table(tokens).flatten(1))  # type: ignore[no-any-return]


class Hidden(Table):
    """The same, by a function: no module says that its gradients are sparse."""

    def __init__(self) -> None:
        super().__init__(sparse=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x > 0).long() + 2 * torch.arange(8)
        return self.head(F.embedding(tokens, self.table.weight, sparse=True).flatten(1))  # type: ignore[no-any-return]


TAKES_SPARSE: dict[str, Make] = {
    "SGD": lambda ps: torch.optim.SGD(ps, 0.1),
    "SGD momentum": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9),
    "Adagrad": lambda ps: torch.optim.Adagrad(ps, 0.05),
}
NEEDS_DENSE: dict[str, tuple[Make, str]] = {
    "AdamW": (lambda ps: torch.optim.AdamW(ps, 1e-3), "AdamW cannot take sparse gradients"),
    "RMSprop": (lambda ps: torch.optim.RMSprop(ps, 1e-3), "RMSprop cannot take sparse gradients"),
    "SGD with decay": (lambda ps: torch.optim.SGD(ps, 0.1, weight_decay=0.1), "SGD with weight decay cannot take"),
}


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("name", TAKES_SPARSE)
def test_sparse_gradients_train_where_the_optimizer_takes_them(tmp_path: Path, name: str, pieces: int) -> None:
    optimizer, dense = TAKES_SPARSE[name], Table(sparse=False)
    torch.manual_seed(0)
    table = Table()
    dense.load_state_dict(table.state_dict())
    common: dict[str, Any] = {"steps": 40, "optimizer": optimizer, "gradient_clip_norm": 0.5, "accumulate": pieces}
    rig = Rig(tmp_path / "a", model=table, **common).begin().finish()
    twin = Rig(tmp_path / "b", model=dense, **common).begin().finish()
    assert {s.phase for s in rig.of(StepRecord)} == set(Phase)
    assert rig.of(StepRecord)[0].grad_norm == pytest.approx(twin.of(StepRecord)[0].grad_norm, rel=1e-4)
    if name != "SGD momentum":  # torch's sparse momentum is lazy: rows that no batch reached keep still
        assert torch.allclose(rig.weights(), twin.weights(), atol=1e-3)


@pytest.mark.parametrize("predictor", ["Linear", "MLP", "RSSM"])
@pytest.mark.parametrize("name", TAKES_SPARSE)
def test_every_predictor_sees_the_momentum_of_a_sparse_embedding(tmp_path: Path, name: str, predictor: str) -> None:
    settings = {"predictor_config": {"type": predictor, "ensemble_size": 3 if predictor != "Linear" else 1}}
    rig = Rig(tmp_path, model=Table(), steps=40, optimizer=TAKES_SPARSE[name], **settings).begin().finish()
    assert rig.session.ended == ("finished", "all 40 steps taken") and rig.engine.predictions_entered


def test_an_optimizer_for_sparse_gradients_alone_is_refused_dense_ones_before_a_weight_moves(tmp_path: Path) -> None:
    rig = Rig(tmp_path, model=Table(), optimizer=lambda ps: torch.optim.SparseAdam(ps, 1e-3)).begin()
    refused(rig, batch_of(0), "SparseAdam takes sparse gradients alone")


@pytest.mark.parametrize("name", NEEDS_DENSE)
def test_sparse_gradients_are_refused_before_the_run_where_it_does_not(tmp_path: Path, name: str) -> None:
    optimizer, words = NEEDS_DENSE[name]
    with pytest.raises(UserError, match=words) as caught:
        Rig(tmp_path, model=Table(), optimizer=optimizer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_optimizer_that_climbs_the_loss_is_refused_before_the_run(tmp_path: Path, name: str) -> None:
    """It trained, and silently kept no prediction: lower is better in every test."""
    with pytest.raises(UserError, match=f"{name} with maximize = True climbs the loss") as caught:
        Rig(tmp_path, optimizer=lambda ps: getattr(torch.optim, name)(ps, 0.01, maximize=True))
    assert "\n" not in str(caught.value)


class Twice(torch.optim.SGD):
    """Asks for the loss again at the point it steps to."""

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize("setting", ["capturable", "differentiable"])
def test_settings_that_torch_refuses_at_the_first_step_are_refused_before_the_run(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UserError, match=f"AdamW with {setting} = True"):
        Rig(tmp_path, optimizer=lambda ps: torch.optim.AdamW(ps, 1e-3, **{setting: True}))


def test_an_optimizer_that_needs_a_closure_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Twice\.step needs closure: use an optimizer that steps by the gradients"):
        Rig(tmp_path, optimizer=lambda ps: Twice(ps, 0.1))


def test_an_optimizer_that_a_scheduler_of_torchs_has_wrapped_is_taken(tmp_path: Path) -> None:
    def scheduled(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.lr_scheduler.StepLR(torch.optim.SGD(ps, 0.1), 1).optimizer

    assert Rig(tmp_path, optimizer=scheduled).begin().until_step(3).engine.schedule.peak == 0.1


def test_sparse_gradients_nobody_announced_are_refused_before_a_weight_moves(tmp_path: Path) -> None:
    refused(Rig(tmp_path, model=Hidden()).begin(), batch_of(0), "AdamW cannot take sparse gradients")


def test_a_frozen_sparse_embedding_is_no_hindrance(tmp_path: Path) -> None:
    table = Table()
    table.table.requires_grad_(False)
    assert Rig(tmp_path, model=table, steps=12).begin().finish().engine.step_count == 12


class Mixed(nn.Module):
    """float32, bfloat16 and float64 parts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16).bfloat16(), nn.Linear(16, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x)).bfloat16()))
        return self.c(y.double()).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD", pytest.param("Muon", marks=NEEDS_MUON)])
def test_parameters_of_several_types_train_through_every_phase_and_resume(tmp_path: Path, kind: str) -> None:
    config = resolve({"optimizer": {"type": kind}, "initial_lr": 3e-3}).config

    def rig(folder: Path) -> Rig:
        torch.manual_seed(1)
        model = Mixed()
        return Rig(folder, model=model, optimizer=lambda _: make_optimizer(config, model), steps=30)

    whole = rig(tmp_path / "whole").begin().finish()
    assert {s.phase for s in whole.of(StepRecord)} == set(Phase)
    assert [p.dtype for p in whole.model.parameters()][::2] == [torch.float32, torch.bfloat16, torch.float64]
    first = rig(tmp_path / "cut").begin().until_step(12)
    first.session.save_checkpoint("cut here")
    second = rig(tmp_path / "cut")
    second.session.resume(0, first.engine.step_count, "resumed")
    assert torch.equal(second.finish().weights(), whole.weights())


def test_half_precision_weights_under_a_loss_scale_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights are float16 already") as caught:
        Rig(tmp_path, model=network().half(), use_mixed_precision=True, precision="fp16")
    assert "\n" not in str(caught.value)


def test_a_group_that_holds_nothing_is_passed_over(tmp_path: Path) -> None:
    def with_empty(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": []}, {"params": ps, "lr": 3e-3}], 1e-3)

    rig = Rig(tmp_path, optimizer=with_empty, steps=30).begin().finish()
    assert {s.phase for s in rig.of(StepRecord)} == set(Phase)


def test_data_shorter_than_warmup_trains_and_says_that_it_never_left_it(tmp_path: Path) -> None:
    batches = [batch_of(i) for i in range(6)]
    model = network()
    settings = EAGER | {"warmup_steps": 50}
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with HybridTrainer(model, optimizer, per_sample, settings, tmp_path / "one pass", serve=False) as trainer:
        assert trainer.run(batches) == 6
        assert trainer.phase is Phase.WARMUP and trainer.outcome == ("finished", "the batches are used up")
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with HybridTrainer(model, optimizer, per_sample, settings, tmp_path / "over and over", serve=False) as trainer:
        assert trainer.run(batches, steps=300) == 300
        assert trainer.engine.predictions_entered > 0, "the data is taken from its start again, so WARMUP does end"


@pytest.mark.parametrize("steps", [1.5, 3.0, 0, -1, math.nan, math.inf, True, "10", 2**53 + 1, [5]])
def test_steps_that_are_no_number_of_steps_are_refused_by_name_and_value(tmp_path: Path, steps: Any) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    allowed = r"must be a whole number from 1 to 2\*\*53, or None"
    with pytest.raises(UserError, match=f"^total_steps = {re.escape(repr(steps))}: {allowed}$"):
        HybridTrainer(model, optimizer, per_sample, EAGER, tmp_path / "run", serve=False, total_steps=steps)
    assert not (tmp_path / "run").exists()
    with HybridTrainer(model, optimizer, per_sample, EAGER, tmp_path / "run", serve=False) as trainer:
        with pytest.raises(UserError, match=f"^steps = {re.escape(repr(steps))}: {allowed}$"):
            trainer.run([batch_of(0)], steps=steps)
        assert trainer.step_count == 0 and not trainer.stopped
        assert trainer.run([batch_of(0), batch_of(1)], steps=np.int64(2)) == 2, "any integer type is one"


def test_no_data_at_all_is_refused(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with (
        pytest.raises(UserError, match="the data is empty"),
        HybridTrainer(model, optimizer, per_sample, EAGER, tmp_path / "run", serve=False) as trainer,
    ):
        trainer.run([])


def test_a_batch_may_hold_tensors_of_other_lengths_beside_its_samples(tmp_path: Path) -> None:
    batch = {"weights": torch.ones(3), "name": "a", "x": batch_of(0)[0], "y": batch_of(0)[1], "of": torch.ones(())}
    rig = Rig(
        tmp_path,
        loss=lambda m, b: F.cross_entropy(m(b["x"]), b["y"], b["weights"]),
        accumulate=3,
        confidence_threshold=0.0,
    ).begin()
    while rig.engine.predictions_entered == 0:
        rig.engine.step(batch)
        rig.session.after_step()
    assert rig.engine.losses.of(batch).shape == (8,)


def test_a_loss_that_cannot_take_part_of_a_batch_is_told_what_it_should_return(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0])[torch.arange(32)], batch[1])

    rig = Rig(tmp_path, loss=loss).begin()
    with pytest.raises(
        UserError, match=r"fails on a part of a batch \(IndexError: .*return one loss per sample"
    ) as caught:
        rig.until_step(20)
    assert "\n" not in str(caught.value)
    assert rig.engine.phase is Phase.FULL and bool(torch.isfinite(rig.weights()).all())


@pytest.mark.parametrize("sharp", ["training", "evaluation"])
def test_a_loss_that_is_per_sample_in_one_mode_only_trains(tmp_path: Path, sharp: str) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        found = per_sample(model, batch)
        return found if model.training == (sharp == "training") else found.mean()

    rig = Rig(tmp_path, loss=loss, steps=40).begin().finish()
    assert rig.engine.predictions_entered > 0


def test_parameters_that_are_not_the_models_are_refused_before_the_run(tmp_path: Path) -> None:
    scale = nn.Parameter(torch.ones(2))
    with pytest.raises(UserError, match=r"not the model's \(1, the first of shape \(2,\)\)") as caught:
        Rig(tmp_path, optimizer=lambda ps: torch.optim.AdamW([*ps, scale], 3e-3))
    assert "\n" not in str(caught.value)
    Rig(tmp_path, optimizer=lambda ps: torch.optim.AdamW([*ps, scale.requires_grad_(False)], 3e-3))


def added(rig: Rig) -> None:
    rig.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})


def frozen(rig: Rig) -> None:
    rig.engine.parameters.tensors[0].requires_grad_(False)


def exchanged(rig: Rig) -> None:
    frozen(rig)
    rig.model.requires_grad_(True)
    rig.optimizer.param_groups[0]["params"][1].requires_grad_(False)


@pytest.mark.parametrize("change", [added, frozen, exchanged])
def test_parameters_added_or_frozen_in_the_run_are_refused_before_a_weight_moves(
    tmp_path: Path, change: Callable[[Rig], None]
) -> None:
    rig = Rig(tmp_path).begin().until_phase(Phase.FULL, 4)
    change(rig)
    before = rig.weights()
    with pytest.raises(UserError, match="make a new one for each stage"):
        rig.step()
    assert torch.equal(rig.weights(), before)


def test_float64_weights_are_left_and_taken_back_to_the_last_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network().double()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0].double()), batch[1], reduction="none")

    common: dict[str, Any] = {"model": model, "loss": loss, "policy": "adaptive", "confidence_threshold": 1.0}
    rig = Rig(tmp_path / "a", min_full_steps=1, **common).begin().until_step(6)
    before = rig.weights()
    assert not torch.equal(before, before.float().double()), "float32 would not hold them"
    probes = len(rig.of(PredictionProbed))
    rig.engine._boundary(batch_of(6))
    assert len(rig.of(PredictionProbed)) > probes and torch.equal(rig.weights(), before)
    rig.tell(SetThreshold("confidence_threshold", 0.0))
    rig.until_phase(Phase.CORRECT, 1)
    assert rig.engine.snapshot is not None and not torch.equal(rig.weights(), before)
    kept = rig.engine.snapshot.weights_P.clone()
    undo(rig.engine, "the test says so")
    assert torch.equal(rig.weights(), kept) and not torch.equal(kept, kept.float().double())


def test_what_a_small_step_changes_in_float64_is_measured_and_not_what_float32_rounds_away(tmp_path: Path) -> None:
    """The norm of the change was a hundred times too large: that of the rounding, which predictors learned, too."""

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch[0].double()), batch[1], reduction="none")

    model = network().double()
    for p in model.parameters():
        p.data.mul_(1.1)
    rig = Rig(tmp_path, model=model, loss=loss, optimizer=lambda ps: torch.optim.SGD(ps, 1e-9)).begin()
    before = rig.weights()
    assert rig.step().update_norm == pytest.approx(float((rig.weights() - before).norm()), rel=1e-5)


@pytest.mark.parametrize(
    ("answer", "measured"),
    [
        (0.5, (0.5, None)),
        (torch.tensor(0.5), (0.5, None)),
        ((0.5, torch.tensor(1)), (0.5, 1.0)),
        ((math.nan, None), None),
    ],
)
def test_a_validation_answers_with_one_number_or_two(tmp_path: Path, answer: Any, measured: Any) -> None:
    rig = Rig(tmp_path, validate=lambda: answer, validate_every=5, steps=10).begin().finish()
    found = rig.of(ValidationMeasured)[0]
    assert (found.loss, found.accuracy) == measured if measured else found.loss != found.loss


@pytest.mark.parametrize("answer", [None, "0.5!", (1.0, 2.0, 3.0), torch.zeros(2), [1.0]])
def test_a_validation_that_answers_with_something_else_is_refused(tmp_path: Path, answer: Any) -> None:
    rig = Rig(tmp_path, validate=lambda: answer, validate_every=5).begin()
    with pytest.raises(UserError, match=r"validate\(\) returned .*must be the loss, or \(loss, accuracy or None\)"):
        rig.until_step(6)
    assert all(m.training for m in rig.model.modules())
