"""Claims about models that keep more than weights: buffers that change or are rare, a state that is no tensor."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.rig import Rig, batch_of, network, per_sample
from trainer_core.engine.buffers import named, put_back
from trainer_core.engine.predicting import undo
from trainer_core.spec.errors import CheckpointError, UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, RunState


class Remembers(nn.Module):
    """A linear model with buffers that grow, that come to be, and that are declared only when they are needed."""

    late: Tensor | None
    seen: Tensor

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.persistent = persistent
        self.head = nn.Linear(8, 3)
        self.register_buffer("seen", torch.zeros(0), persistent)
        self.register_buffer("late", None, persistent)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = torch.cat([self.seen, x.detach().mean().reshape(1)])
            if len(self.seen) > 7:
                self.late = x.detach().mean(0)
            if len(self.seen) > 8:
                self.register_buffer("newest", x.detach().std().reshape(1), self.persistent)
        return self.head(x)  # type: ignore[no-any-return]


def buffers(model: nn.Module) -> dict[str, Any]:
    """The buffers as plain lists."""
    return {name: None if b is None else b.tolist() for name, b in model._buffers.items()}


@pytest.mark.parametrize("persistent", [True, False])
def test_an_undone_prediction_puts_back_buffers_of_another_shape(tmp_path: Path, persistent: bool) -> None:
    model = Remembers(persistent)
    rig = Rig(tmp_path, model=model, warmup_steps=0, full_steps=6).begin().until_phase(Phase.FULL, 6)
    before, weights = buffers(model), model.head.weight.detach().clone()
    assert len(before["seen"]) == 6 and before["late"] is None and "newest" not in before
    rig.until_phase(Phase.CORRECT, 1)
    model.train()
    for index in (50, 51):
        model(batch_of(index)[0])
    assert len(buffers(model)["seen"]) >= 9 and buffers(model)["late"] is not None and "newest" in buffers(model)
    undo(rig.engine, "test")
    assert buffers(model) == before and torch.equal(model.head.weight, weights)


def test_a_list_of_buffers_of_an_earlier_version_goes_to_its_places() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3), Remembers(True))
    model[1].running_mean = model[0].running_mean  # one buffer under two names
    kept = [buffer.clone() for buffer in model.buffers()]
    assert kept and all(isinstance(buffer, Tensor) for buffer in kept)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    put_back(model, named(model, kept), torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "late" in model[2]._buffers and model[2]._buffers["late"] is None


def test_a_rollback_puts_back_buffers_of_another_shape(tmp_path: Path) -> None:
    model = Remembers(persistent=True)
    rig = Rig(tmp_path, model=model, warmup_steps=60, steps=30, scales={12: math.nan}).begin().finish()
    assert len(rig.of(AttemptStarted)) == 1 and rig.session.ended == ("finished", "all 30 steps taken")
    assert len(model.seen) == 30  # those of the attempt that was given up are not among them


class Counts(nn.Module):
    """A linear model with a state that is no tensor."""

    def __init__(self, held: Any = None) -> None:
        super().__init__()
        self.head, self.calls, self.held = nn.Linear(8, 3), 0, held

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.head(x)  # type: ignore[no-any-return]

    def get_extra_state(self) -> dict[str, Any]:
        return {"calls": self.calls, "shape": [3, (8, "x", None, 0.5, True)], "t": torch.ones(2), "held": self.held}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def test_a_state_that_is_no_tensor_is_saved_and_comes_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, model=Counts()).begin().until_step(4)
    rig.session.save_checkpoint("test")
    other = Rig(tmp_path, model=(model := Counts()))
    other.session.resume(0, 4, "resumed")
    assert model.calls == 4
    other.step()
    other.session.roll_back(None, "test")
    assert model.calls == 4


def test_a_model_that_has_lost_such_a_state_is_another(tmp_path: Path) -> None:
    Rig(tmp_path, model=Counts()).begin()
    plain = nn.Module()
    plain.head = nn.Linear(8, 3)
    rig = Rig(tmp_path, model=plain, loss=lambda model, batch: per_sample(model.head, batch))
    with pytest.raises(CheckpointError, match="the checkpoint's model is another: _extra_state is not in the model"):
        rig.session.resume(0, 0, "resumed")


def test_a_state_that_no_checkpoint_can_be_read_with_is_refused_before_the_run(tmp_path: Path) -> None:
    rig = Rig(tmp_path, model=Counts(held=Path("here")))
    with pytest.raises(UserError, match="state _extra_state holds a PosixPath: a checkpoint keeps tensors, numbers"):
        rig.begin()
    assert not list(tmp_path.iterdir())


def test_a_parameter_that_was_replaced_in_the_run_is_not_saved_as_if_it_had_been_trained(tmp_path: Path) -> None:
    rig = Rig(tmp_path, model=(model := network())).begin().until_step(4)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rig.session.save_checkpoint("test")
    model.load_state_dict(state)  # copies values: nothing is wrong with that
    rig.session.save_checkpoint("test")
    model.load_state_dict(state, assign=True)
    with pytest.raises(UserError, match=r"0\.weight is no longer the tensor that is trained \(4 were replaced"):
        rig.session.save_checkpoint("test")
    assert rig.session.checkpoints.entries()[-1].step == 4
    rig.session.end("finished", "test")
    rig.session.close()
    assert rig.of(RunState)[-1].state == "failed" and "0.weight is no longer" in rig.of(RunState)[-1].because


class WithBuffer(nn.Module):
    """A linear model with a constant of its own."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)
        self.register_buffer("constant", value)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.linear((self.constant @ x.T.to(self.constant.dtype)).T.real.float())  # type: ignore[operator]
        return mixed


BUFFERS = {
    "a sparse graph": lambda: torch.eye(8).to_sparse(),
    "sparse rows": lambda: torch.eye(8).to_sparse_csr(),
    "complex numbers of two doubles": lambda: torch.eye(8, dtype=torch.complex128),
}


@pytest.mark.parametrize("policy", ["document", "adaptive"])
@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS.keys())
def test_a_buffer_that_safetensors_cannot_hold_is_saved_and_comes_back(
    tmp_path: Path, buffer: Callable[[], Tensor], policy: str
) -> None:
    """The run ended before its first step: its first checkpoint could not be written."""
    torch.manual_seed(1)
    whole = Rig(tmp_path, model=WithBuffer(buffer()), policy=policy, checkpoint_every=7).begin().until_step(40)
    assert whole.engine.predictions_kept > 0
    whole.session.roll_back(None, "asked for")
    whole.until_step(60)
    whole.session.save_checkpoint("cut here")
    torch.manual_seed(1)
    resumed = Rig(tmp_path, model=WithBuffer(buffer()), policy=policy)
    resumed.session.resume(whole.engine.attempt, whole.engine.step_count, "resumed")
    for _ in range(10):
        assert whole.step().loss == resumed.step().loss
