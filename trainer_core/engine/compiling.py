"""torch.compile for a model's forward pass, or one sentence why it cannot be had. Knows no training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer_core.spec.errors import ConfigError


def compile_model(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile ``model``'s forward in place: names, hooks and state_dict stay as they are; done at the first call.

    Raises ConfigError where a function of one line cannot be compiled: no C++ compiler, or too new a Python.
    """
    try:
        torch.compile(_line, backend=backend)(torch.ones(2))
    except (RuntimeError, OSError, ImportError) as error:
        first = str(error).strip().splitlines()
        why = first[0] if first else type(error).__name__
        raise ConfigError(f"[training] compile = true: torch.compile does not work here ({why})") from None
    model.compile(backend=backend)


def _line(x: Tensor) -> Tensor:
    return x * 2 + 1
