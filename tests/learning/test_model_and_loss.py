"""Claims about parameters and losses: any model as one vector and back, any loss function as per-sample values."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_core.learning.loss import BatchLoss, batch_size, checked_batch
from trainer_core.learning.parameters import Parameters
from trainer_core.spec.errors import UserError

CPU = torch.device("cpu")


def mixed() -> nn.Module:
    """Tied, frozen, and of several dtypes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).half(), nn.Linear(4, 2).double())
    net[1].weight = net[0].weight
    net[1].bias.requires_grad_(False)
    return net


def test_tied_weights_count_once_and_frozen_ones_not_at_all() -> None:
    parameters = Parameters(mixed())
    assert parameters.names == ("0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias")
    assert parameters.count == 20 + 20 + 10
    assert parameters.layers == ("0", "2", "3")


def test_weights_of_several_dtypes_survive_reading_and_writing_bit_for_bit() -> None:
    net = mixed()
    parameters = Parameters(net)
    before = [p.detach().clone() for p in parameters.tensors[:4]]
    kept = parameters.read(parameters.empty())
    parameters.add(torch.ones(parameters.count), 0.25)
    assert not torch.equal(parameters.tensors[0], before[0])
    parameters.write(kept)
    assert all(torch.equal(a, b) for a, b in zip(parameters.tensors[:4], before, strict=True))
    assert [p.dtype for p in parameters.tensors[::2]] == [torch.float32, torch.float16, torch.float64]


def test_adding_a_delta_is_the_slow_loop_over_parameters() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    parameters = Parameters(net)
    delta = torch.randn(parameters.count)
    expected, start = [], 0
    for p in net.parameters():
        expected.append(p.detach() + 3 * delta[start : start + p.numel()].view(p.shape))
        start += p.numel()
    parameters.add(delta, 3.0)
    assert all(torch.allclose(p, e) for p, e in zip(net.parameters(), expected, strict=True))


def test_layer_norms_are_the_norms_of_all_gradients_of_a_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    net(torch.ones(1, 3)).sum().backward()
    net[1].bias.grad = None
    parameters = Parameters(net)
    norms = parameters.gradient_norms()
    assert norms[3] == 0, "a parameter without a gradient"
    first = torch.cat([net[0].weight.grad.flatten(), net[0].bias.grad]).norm()
    assert parameters.layer_norms([float(norm) for norm in norms])[0] == pytest.approx(float(first))


def test_sparse_gradients_have_a_norm() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    assert Parameters(table).gradient_norms()[0] == pytest.approx(float(table.weight.grad.to_dense().norm()))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.ReLU(), "no trainable parameters"),
        (nn.LazyLinear(3), "no shape yet"),
        (nn.ParameterList([torch.zeros(2, dtype=torch.complex64)]), "must be real floating point"),
    ],
)
def test_a_model_that_cannot_be_trained_is_named(model: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Parameters(model)


X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def net() -> nn.Module:
    """Four inputs, three classes."""
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def with_outputs(outputs: Tensor, targets: Tensor) -> Tensor:
    """A criterion by the name of its first argument."""
    return F.cross_entropy(outputs, targets)


def named_batch(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A function of the model and a dictionary."""
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


@pytest.mark.parametrize(
    ("loss_fn", "batch", "samples"),
    [
        (nn.CrossEntropyLoss(), (X, Y), 8),
        (nn.CrossEntropyLoss(reduction="none"), (X, Y), 16),
        (F.cross_entropy, (X, Y), 8),
        (with_outputs, [X, Y], 8),
        (named_batch, {"x": X, "y": Y}, 16),
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), (X, Y), 8),
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"), (X, Y), 16),
    ],
    ids=["module", "module per sample", "functional", "by name", "dictionary", "function", "function per sample"],
)
def test_every_form_of_loss_gives_the_same_mean_and_samples_that_average_to_it(
    loss_fn: Any, batch: Any, samples: int
) -> None:
    model, loss = net(), BatchLoss(loss_fn)
    expected = F.cross_entropy(model(X), Y)
    assert torch.allclose(loss.mean(model, batch), expected)
    values = loss.samples(model, batch)
    assert values.shape == (samples,)
    assert torch.allclose(values.mean(), expected, atol=1e-6)


def test_a_loss_that_cannot_be_cut_is_one_sample() -> None:
    loss = BatchLoss(lambda model, batch: model(torch.ones(1, 4)).sum())
    assert loss.samples(net(), "a batch without tensors").shape == (1,)
    assert batch_size("a batch without tensors") is None


def test_a_batch_keeps_its_structure_on_the_way_to_the_device() -> None:
    batch = {"x": X, "more": [Y, ("name", 3)]}
    moved = checked_batch(batch, CPU)
    assert moved["more"][1] == ("name", 3) and moved["x"] is X
    with pytest.raises(UserError, match="empty"):
        checked_batch({"x": X[:0]}, CPU)


@pytest.mark.parametrize(
    ("loss_fn", "words"),
    [
        (lambda model, batch: model(batch[0]), r"returned \(16, 3\)"),
        (lambda model, batch: 1.0, "returned float"),
        (nn.CrossEntropyLoss(), r"must be \(inputs, targets\)"),
    ],
)
def test_a_loss_that_cannot_be_used_is_named(loss_fn: Any, words: str) -> None:
    batch = X if isinstance(loss_fn, nn.Module) else (X, Y)
    with pytest.raises(UserError, match=words):
        BatchLoss(loss_fn).mean(net(), batch)
    with pytest.raises(UserError, match="must be a function"):
        BatchLoss(None)  # type: ignore[arg-type]
