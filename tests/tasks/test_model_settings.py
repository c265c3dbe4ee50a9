"""Claims about the built-in models: every setting of [model] changes them as it says; read off the modules."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer_core import spec
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.loading import resolve
from trainer_core.tasks import make_task

TASKS = ("digits", "code_lm")
DATA = {"digits": None, "code_lm": Path(spec.__file__).parent}
INPUTS = {"digits": torch.rand(4, 1, 8, 8), "code_lm": torch.randint(256, (4, 64))}


def model(task: str, **settings: Any) -> nn.Module:
    """The task's model with settings of [model]; seeded."""
    config = resolve({"model": settings}).config
    torch.manual_seed(0)
    return make_task(task, config, DATA[task], torch.device("cpu")).model()


def of(kind: type[nn.Module] | tuple[type[nn.Module], ...], made: nn.Module) -> list[Any]:
    """The modules of one kind."""
    return [m for m in made.modules() if isinstance(m, kind)]


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


@pytest.mark.parametrize("task", TASKS)
def test_dropout_rate_is_every_dropouts_own(task: str) -> None:
    assert {d.p for d in of(nn.Dropout, model(task, dropout_rate=0.3))} == {0.3}
    assert {d.p for d in of(nn.Dropout, model(task))} == {0.0}
    made = model(task, dropout_rate=0.5)
    assert not torch.equal(made(INPUTS[task]), made(INPUTS[task]))
    made.eval()
    assert torch.equal(made(INPUTS[task]), made(INPUTS[task]))


@pytest.mark.parametrize(
    ("task", "name", "kinds"),
    [
        ("digits", "LayerNorm", {nn.GroupNorm}),
        ("digits", "BatchNorm", {nn.BatchNorm2d}),
        ("digits", "none", set()),
        ("code_lm", "LayerNorm", {nn.LayerNorm}),
        ("code_lm", "none", set()),
    ],
)
def test_normalization_is_what_is_in_the_model(task: str, name: str, kinds: set[type]) -> None:
    assert {type(m) for m in of(NORMS, model(task, normalization=name))} == kinds


def test_layer_norm_of_the_digits_network_is_over_all_of_a_sample() -> None:
    (norm,) = of(nn.GroupNorm, model("digits", normalization="LayerNorm"))
    assert norm.num_groups == 1


def test_batch_norm_in_a_language_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="normalization = 'BatchNorm'"):
        model("code_lm", normalization="BatchNorm")


def silenced(made: nn.Module, parts: tuple[str, ...]) -> nn.Module:
    """The model with the named layers at zero."""
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.rsplit(".", 2)[-2] in parts:
                p.zero_()
    return made.eval()


@pytest.mark.parametrize(("task", "parts"), [("digits", ("conv",)), ("code_lm", ("out", "down"))])
@pytest.mark.parametrize("residual", [True, False])
def test_with_residual_connections_the_input_passes_a_silent_block(
    task: str, parts: tuple[str, ...], residual: bool
) -> None:
    made = silenced(model(task, use_residual=residual, normalization="none"), parts)
    a, b = INPUTS[task][:1], INPUTS[task][1:2]
    assert torch.equal(made(a), made(b)) is not residual, "without them nothing of the input gets through"


@pytest.mark.parametrize("task", TASKS)
def test_width_and_depth_are_the_models(task: str) -> None:
    small, large = model(task, hidden_dim=32, num_layers=2), model(task, hidden_dim=64, num_layers=4)
    assert len(small.blocks) + (task == "digits") == 2 and len(large.blocks) + (task == "digits") == 4  # type: ignore[arg-type]
    assert small.head.in_features == 32 and large.head.in_features == 64  # type: ignore[union-attr]


def test_vocabulary_is_the_number_of_outputs_and_of_embeddings() -> None:
    made = model("code_lm", vocab_size=300)
    assert made.head.out_features == 300 and made.tokens.num_embeddings == 300  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="vocab_size = 100"):
        model("code_lm", vocab_size=100)


def matrices(made: nn.Module) -> list[torch.Tensor]:
    """Weight matrices and kernels large enough for their spread to be measured."""
    return [p.detach() for p in made.parameters() if p.dim() > 1 and p.numel() > 1000]


def fans(weight: torch.Tensor) -> tuple[int, int]:
    """(inputs, outputs) of one unit."""
    field = weight[0][0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("xavier_uniform", lambda i, o: 2 / (i + o)),
        ("xavier_normal", lambda i, o: 2 / (i + o)),
        ("kaiming_uniform", lambda i, o: 2 / i),
        ("kaiming_normal", lambda i, o: 2 / i),
    ],
)
def test_every_weight_matrix_has_the_spread_of_its_initialization(task: str, name: str, variance: Any) -> None:
    made = matrices(model(task, weight_init=name))
    assert len(made) >= 3
    for weight in made:
        expected = math.sqrt(variance(*fans(weight)))
        assert float(weight.std()) == pytest.approx(expected, rel=0.1)
        bounded = float(weight.abs().max()) <= expected * math.sqrt(3) * 1.001
        assert bounded is name.endswith("uniform")


@pytest.mark.parametrize("task", TASKS)
def test_default_keeps_the_models_own_initialization(task: str) -> None:
    torch.manual_seed(0)
    made, named = model(task), model(task, weight_init="default")
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), named.parameters(), strict=True))
    assert not torch.equal(matrices(made)[0], matrices(model(task, weight_init="xavier_uniform"))[0])
    with pytest.raises(ConfigError, match="weight_init = 'zeros': must be one of default, xavier_uniform"):
        model(task, weight_init="zeros")


@pytest.mark.parametrize("task", TASKS)
def test_biases_and_norms_are_left_as_they_are_by_every_initialization(task: str) -> None:
    made = model(task, weight_init="kaiming_normal")
    for norm in of(NORMS, made):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))


@pytest.mark.parametrize("task", TASKS)
def test_batches_are_of_the_configured_size_from_so_many_examples(task: str) -> None:
    config = resolve({"batch_size": 7, "dataset": {"num_examples": 70}}).config
    work = make_task(task, config, DATA[task], torch.device("cpu"))
    batch = work.batch(0)
    assert len(batch[0] if task == "digits" else batch) == 7
    assert work.loss(work.model(), batch).shape == (7,)


def test_more_samples_a_batch_than_there_are_examples_is_all_of_them() -> None:
    config = resolve({"batch_size": 64, "dataset": {"num_examples": 10}}).config
    work = make_task("digits", config, None, torch.device("cpu"))
    assert [len(work.batch(i)[1]) for i in range(3)] == [10, 10, 10]
