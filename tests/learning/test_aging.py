"""Claims about Adam's second moments after a prediction: they age as so many steps would have aged them."""

from typing import Any

import pytest
import torch
from torch import nn

from trainer_core.learning.aging import LEAST_KEPT, age_second_moments


def trained(optimizer: type[torch.optim.Optimizer], steps: int = 3, **settings: Any) -> tuple[nn.Module, Any]:
    """A small model after a few steps, its last gradient still there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    made: Any = optimizer
    adam = made(model.parameters(), lr=1e-2, **settings)
    for _ in range(steps):
        adam.zero_grad()
        model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
        adam.step()
    return model, adam


def gradient(p: nn.Parameter) -> torch.Tensor:
    """It has one."""
    assert p.grad is not None
    return p.grad


def directions(adam: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The bias-corrected first moments."""
    return [state["exp_avg"] / (1 - 0.9 ** float(state["step"])) for state in adam.state.values()]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_they_are_what_as_many_steps_with_that_gradient_would_have_made(kind: type[torch.optim.Optimizer]) -> None:
    model, adam = trained(kind)
    expected = []
    for p in model.parameters():
        square = adam.state[p]["exp_avg_sq"].clone()
        for _ in range(40):
            square = 0.999 * square + 0.001 * gradient(p) ** 2
        expected.append(square)
    weights, means = [p.clone() for p in model.parameters()], directions(adam)
    age_second_moments(adam, 40)
    for p, square in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(adam.state[p]["exp_avg_sq"], square)
        assert float(adam.state[p]["step"]) == pytest.approx(43)
    assert all(map(torch.equal, weights, model.parameters()))
    torch.testing.assert_close(directions(adam), means)


@pytest.mark.parametrize(("beta2", "steps"), [(0.999, 640), (0.95, 30)])
def test_one_gradient_replaces_no_more_than_a_tenth_of_them(beta2: float, steps: int) -> None:
    model, adam = trained(torch.optim.AdamW, betas=(0.9, beta2))
    before = [adam.state[p]["exp_avg_sq"].clone() for p in model.parameters()]
    age_second_moments(adam, steps)
    for p, square in zip(model.parameters(), before, strict=True):
        mixed = LEAST_KEPT * square + (1 - LEAST_KEPT) * gradient(p) ** 2
        torch.testing.assert_close(adam.state[p]["exp_avg_sq"], mixed)
        aged = float(adam.state[p]["step"]) - 3
        assert beta2**aged == pytest.approx(LEAST_KEPT, rel=1e-5), "the count has aged as far, and no further"


def test_a_gradient_that_stays_leaves_the_size_of_a_step_as_it_is() -> None:
    weight = nn.Parameter(torch.ones(3))
    adam = torch.optim.Adam([weight], lr=0.1)
    for _ in range(5):
        weight.grad = torch.tensor([1.0, -2.0, 0.5])
        adam.step()
    age_second_moments(adam, 60)
    before = weight.detach().clone()
    adam.step()
    torch.testing.assert_close(before - weight, 0.1 * gradient(weight).sign())
    state = adam.state[weight]
    torch.testing.assert_close(state["exp_avg_sq"] / (1 - 0.999 ** float(state["step"])), gradient(weight) ** 2)


def test_what_has_no_second_moments_stays_as_it_is() -> None:
    _, sgd = trained(torch.optim.SGD, momentum=0.9)
    before = [{k: v.clone() for k, v in state.items()} for state in sgd.state.values()]
    age_second_moments(sgd, 50)
    assert all(torch.equal(now[k], then[k]) for now, then in zip(sgd.state.values(), before, strict=True) for k in then)
    _, forgetful = trained(torch.optim.Adam, betas=(0.9, 0.0))
    age_second_moments(forgetful, 50)
    assert {float(state["step"]) for state in forgetful.state.values()} == {3.0}


def test_a_parameter_without_a_gradient_is_passed_over() -> None:
    model, adam = trained(torch.optim.AdamW)
    first, *rest = model.parameters()
    first.grad = None
    age_second_moments(adam, 10)
    assert float(adam.state[first]["step"]) == 3
    assert all(float(adam.state[p]["step"]) == pytest.approx(13) for p in rest)
