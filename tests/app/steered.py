"""A training script for the tests of steering: a small model with a knob, steps at a walking pace, alerts at once.

python -m tests.app.steered RUN_DIR
"""

import sys
import time
from collections.abc import Iterator

import torch

from trainer_core import HybridTrainer

SETTINGS = {
    "preset": "small",
    "hybrid_trainer_config": {"warmup_steps": 20},
    "health": {"plateau_steps": 1, "plateau_improvement": 1.0},
    "checkpoint": {"checkpoint_every": 0},
}
"""No gain is enough: the alert of a plateau stays open. No save of its own refuses a command that comes meanwhile."""
STEP_S = 0.01


def batches(inputs: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same 256 rows in turns of 32, not faster than one in ``STEP_S`` seconds."""
    for index in range(10**9):
        time.sleep(STEP_S)
        rows = slice(32 * (index % 8), 32 * (index % 8) + 32)
        yield inputs[rows], labels[rows]


def main() -> None:
    """Train until an operator stops it."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    labels = (inputs.sum(dim=1) > 0).long()
    dropout = torch.nn.Dropout(0.1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), dropout, torch.nn.Linear(16, 2))

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with HybridTrainer(model, optimizer, loss, SETTINGS, run_dir=sys.argv[1]) as trainer:
        trainer.knob("dropout", lambda: dropout.p, lambda value: setattr(dropout, "p", value), low=0.0, high=0.5)
        trainer.run(batches(inputs, labels), steps=10**9)


if __name__ == "__main__":
    main()
