"""A small GPT on Python source, byte by byte: the standard library's own files, or every source file under a folder."""

import sysconfig
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer_core.spec.config import Config, ModelConfig
from trainer_core.spec.errors import ConfigError, UserError
from trainer_core.spec.loading import Tables
from trainer_core.tasks import initialize

DEFAULTS: Tables = {
    "hybrid_trainer_config": {
        "warmup_steps": 50,
        "max_predict_steps": 90,
        "min_predict_steps": 4,
    },
    "predictor_config": {"noise_mask": 0.6},
    "learning_rate": {"initial": 1e-4},
    "learning_rate_schedule": {"type": "WarmupStableDecay", "warmup_steps": 50, "stable_steps": 1_000_000},
    "training": {"batch_size": 16, "max_steps": 20_000, "threads": 1},
}
"""The document's small-preset learning rate; horizon and noise mask as measurement chose them for language models."""

CONTEXT = 64
"""Bytes a prediction may look back."""
_BYTES = 256
_MOST_BYTES = 6_000_000
_HELD_OUT_SHARE = 0.05
_VALIDATION_WINDOWS = 256


class CodeLM:
    """Batches are (B, 65) byte windows: the model reads the first 64 and predicts the last 64."""

    name = "code_lm"

    def __init__(self, config: Config, source: Path, device: torch.device) -> None:
        self._config, self._device = config, device
        train, held_out = read_source(source)
        limit = config.dataset.num_examples
        self._train = train[: limit * (CONTEXT + 1)] if limit else train
        generator = torch.Generator().manual_seed(0)
        starts = torch.randint(len(held_out) - CONTEXT, (_VALIDATION_WINDOWS,), generator=generator)
        self._held_out = _windows(held_out, starts).to(device)

    def model(self) -> nn.Module:
        model = GPT(self._config.model)
        initialize(model, self._config.model.weight_init)
        return model

    def batch(self, index: int) -> Tensor:
        seed = self._config.training.seed * 1_000_003 + index
        generator = torch.Generator().manual_seed(seed)
        size = (self._config.training.batch_size,)
        return _windows(self._train, torch.randint(len(self._train) - CONTEXT, size, generator=generator)).to(
            self._device
        )

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").mean(1)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> tuple[float, float | None]:
        losses = [self.loss(model, part) for part in self._held_out.split(64)]
        return float(torch.cat(losses).mean()), None


def read_source(folder: Path) -> tuple[Tensor, Tensor]:
    """(training, held-out) bytes as int64 vectors; a file is held out by the checksum of its name, so always the same.
    Where that leaves one of the two with too little, the end of all the text is held out.

    Raises UserError when the folder cannot be read or holds too little text.
    """
    if not folder.is_dir():
        raise UserError(f"data folder {folder}: {'is a file' if folder.exists() else 'does not exist'}")
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    total = 0
    for file in sorted(p for p in folder.rglob("*.py") if p.is_file()):
        try:
            with file.open("rb") as opened:
                text = opened.read(_MOST_BYTES)
        except OSError as error:
            raise UserError(f"data file {file} cannot be read: {error.strerror}") from None
        held_out = zlib.crc32(file.relative_to(folder).as_posix().encode()) % 1000 < 1000 * _HELD_OUT_SHARE
        parts[held_out].append(text)
        total += len(text)
        if total >= _MOST_BYTES:
            break
    train, held = b"\n".join(parts[0]), b"\n".join(parts[1])
    least = 20 * (CONTEXT + 1)
    if len(train) < least or len(held) <= CONTEXT + 1:  # so few files that one part has next to none of them
        whole = b"\n".join(part for part in (train, held) if part)
        cut = int(len(whole) * (1 - _HELD_OUT_SHARE))
        train, held = whole[:cut], whole[cut:]
    if len(train) < least or len(held) <= CONTEXT + 1:
        raise UserError(f"data folder {folder}: {total} bytes in .py files; at least {2 * least} are needed")
    return tuple(torch.frombuffer(bytearray(t), dtype=torch.uint8).long() for t in (train, held))  # type: ignore[return-value]


def _windows(data: Tensor, starts: Tensor) -> Tensor:
    return data[starts[:, None] + torch.arange(CONTEXT + 1)]


class GPT(nn.Module):
    """Decoder-only transformer, pre-norm. (B, T) bytes -> (B, T, vocab) logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_dim or 128
        vocab = config.vocab_size or _BYTES
        if vocab < _BYTES:
            raise ConfigError(f"[model] vocab_size = {vocab}: code_lm reads bytes and needs at least {_BYTES}")
        if width % 4:
            raise ConfigError(f"[model] hidden_dim = {width}: must be a multiple of 4, the number of heads")
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(_Block(width, config) for _ in range(config.num_layers or 3))
        self.norm = _norm(width, config)
        self.head = nn.Linear(width, vocab, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = _norm(width, config), _norm(width, config)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.residual = float(config.use_residual)

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual * x + self.dropout(self._attention(self.norm_attention(x)))
        mlp = self.down(F.gelu(self.up(self.norm_mlp(x))))
        out: Tensor = self.residual * x + self.dropout(mlp)
        return out

    def _attention(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, 4, width // 4).transpose(1, 2) for part in self.qkv(x).split(width, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


def _norm(width: int, config: ModelConfig) -> nn.Module:
    match config.normalization:
        case "LayerNorm":
            return nn.LayerNorm(width)
        case "BatchNorm":
            raise ConfigError(
                "[model] normalization = 'BatchNorm': mixes positions of a sequence; code_lm needs LayerNorm"
            )
        case "none":
            return nn.Identity()


def make(config: Config, data: Path | None, device: torch.device) -> CodeLM:
    """The task on ``data``, or on the standard library's source."""
    return CodeLM(config, data if data is not None else Path(sysconfig.get_path("stdlib")), device)
