"""A small convolutional network on scikit-learn's 8x8 handwritten digits: 1,437 to train on, 360 held out."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_core.spec.config import Config, ModelConfig
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import Tables
from trainer_core.tasks import epoch_order, initialize

DEFAULTS: Tables = {
    "hybrid_trainer_config": {
        "warmup_steps": 20,
        "max_predict_steps": 100,
        "min_predict_steps": 4,
    },
    "learning_rate": {"initial": 1e-4},
    "learning_rate_schedule": {"type": "WarmupStableDecay", "warmup_steps": 20, "stable_steps": 1_000_000},
    "training": {"batch_size": 64, "max_steps": 3000, "threads": 1},
}
"""The document's small-preset learning rate: far below this network's best one, where prediction pays most."""

_CLASSES = 10
_TRAIN = 1437


class Digits:
    """Batches are (images (B, 1, 8, 8) in [0, 1], labels (B,))."""

    name = "digits"

    def __init__(self, config: Config, device: torch.device) -> None:
        images, labels = load_digits(return_X_y=True)
        order = epoch_order(len(labels), 0, 0)
        x = (torch.tensor(images, dtype=torch.float32) / 16.0).view(-1, 1, 8, 8)[order].to(device)
        y = torch.tensor(labels, dtype=torch.long)[order].to(device)
        train = min(_TRAIN, config.dataset.num_examples or _TRAIN)
        self._train, self._held_out = (x[:train], y[:train]), (x[_TRAIN:], y[_TRAIN:])
        self._config = config

    def model(self) -> nn.Module:
        model = _Network(self._config.model)
        initialize(model, self._config.model.weight_init)
        return model

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        count = len(self._train[1])
        size = min(self._config.training.batch_size, count)
        per_epoch = count // size
        order = epoch_order(count, self._config.training.seed, index // per_epoch)
        start = (index % per_epoch) * size
        chosen = order[start : start + size].to(self._train[0].device)
        return self._train[0][chosen], self._train[1][chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels, reduction="none")

    def validate(self, model: nn.Module) -> tuple[float, float | None]:
        images, labels = self._held_out
        with torch.no_grad():
            logits = model(images)
        return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


class _Network(nn.Module):
    """Convolutions at 8x8 and 4x4, then a hidden layer. (B, 1, 8, 8) -> (B, 10)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim or 64
        depth = config.num_layers or 2
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(16, _norm(16, config), config.use_residual) for _ in range(depth - 1))
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.hidden = nn.Linear(32 * 4 * 4, hidden)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.head = nn.Linear(hidden, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        x = F.relu(self.down(x)).flatten(1)
        logits: Tensor = self.head(self.dropout(F.relu(self.hidden(x))))
        return logits


class _Block(nn.Module):
    def __init__(self, channels: int, norm: nn.Module, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = norm
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        return x + y if self.residual else y


def _norm(channels: int, config: ModelConfig) -> nn.Module:
    match config.normalization:
        case "LayerNorm":
            return nn.GroupNorm(1, channels)
        case "BatchNorm":
            return nn.BatchNorm2d(channels)
        case "none":
            return nn.Identity()


def make(config: Config, data: Path | None, device: torch.device) -> Digits:
    """The task; its data come with scikit-learn, so ``data`` must be None."""
    if data is not None:
        raise UserError(f"digits brings its own data; --data {data} is for code_lm")
    return Digits(config, device)
