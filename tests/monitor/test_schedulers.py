"""A learning rate that an operator has changed stays changed under every scheduler that was given to the monitor."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

from tests.monitor.test_own_loop import Watched
from trainer_core.spec.commands import CommandState, ScaleLearningRate

Made = Callable[[torch.optim.Optimizer], Any]


def rates(make: Made, factor: float | None) -> list[list[float]]:
    """Both groups' rates over twenty steps of a scheduler, after a command that scales them, or without one."""
    watched = Watched()
    scheduler = make(watched.optimizer)
    watched.loop.scheduler = scheduler
    if factor is not None:
        assert watched.told(ScaleLearningRate(factor)).state is CommandState.APPLIED
    found = []
    for _ in range(20):
        watched.optimizer.step()
        for one in scheduler if isinstance(scheduler, list) else [scheduler]:
            one.step()
        found.append(watched.rates)
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedulers.CyclicLR(o, [0.1, 0.2], [1.0, 2.0], step_size_up=4),
        lambda o: schedulers.CyclicLR(o, 0.1, 1.0, step_size_up=4, mode="exp_range", gamma=0.9),
        lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=30),
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, 7),
        lambda o: SWALR(o, [0.01, 0.02], anneal_epochs=5),
        lambda o: [schedulers.LambdaLR(o, lambda step: 0.9**step)],
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CyclicLR(o, 0.1, 1.0, 4)], [5]
        ),
    ],
    ids=["cyclic", "exp_range", "one cycle", "warm restarts", "swa", "a list", "inside another"],
)
def test_every_rate_of_the_schedule_is_scaled(make: Made) -> None:
    """CyclicLR kept its upper bounds, and a list was passed over: the change was taken back under an APPLIED."""
    for plain, scaled in zip(rates(make, None), rates(make, 0.5), strict=True):
        assert scaled == pytest.approx([rate / 2 for rate in plain])
