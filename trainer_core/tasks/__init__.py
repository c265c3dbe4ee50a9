"""Ready workloads: data, model, loss, evaluation. A task knows nothing of phases, files of a run, or telemetry."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer_core.spec.config import Config
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import Tables


class Task(Protocol):
    """One workload. Batches are a function of their index, so a resumed run sees the same data."""

    name: str

    def model(self) -> nn.Module:
        """A new model; the caller has seeded torch."""
        ...

    def batch(self, index: int) -> Any:
        """Training batch ``index`` (0, 1, ...), the same at every call."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Per-sample losses (B,) or their mean."""
        ...

    def validate(self, model: nn.Module) -> tuple[float, float | None]:
        """(loss, accuracy or None) on held-out data; the model is in evaluation mode. May be left out."""
        ...


BUILT_IN = {"digits": "trainer_core.tasks.digits", "code_lm": "trainer_core.tasks.code_lm"}


def task_defaults(name: str) -> Tables:
    """Settings a built-in task starts from; none for a task of the user's own."""
    if name not in BUILT_IN:
        return {}
    defaults: Tables = importlib.import_module(BUILT_IN[name]).DEFAULTS
    return defaults


def make_task(name: str, config: Config, data: Path | None, device: torch.device) -> Task:
    """The task called ``name``: digits, code_lm, or ``module:function``. Raises UserError naming what is wrong."""
    if name in BUILT_IN:
        task: Task = importlib.import_module(BUILT_IN[name]).make(config, data, device)
        return task
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise UserError(f"{name}: no such task; give {', '.join(BUILT_IN)} or module:function")
    made: Task = _called(name, _function(name, module_name, function_name), config, data, device)
    missing = [part for part in ("model", "batch", "loss") if not callable(getattr(made, part, None))]
    if missing:
        raise UserError(f"{name}: returned {type(made).__name__}, which has no {', '.join(missing)}")
    if not isinstance(called := getattr(made, "name", name), str):
        raise UserError(f"{name}: returned a {type(made).__name__} whose name is {called!r:.100}: must be a text")
    return made


def _function(name: str, module_name: str, function_name: str) -> Callable[..., Any]:
    """The user's function; modules in the working directory are found, as ``python -m`` finds them.

    What the module itself raises while it is imported is its own to show.
    """
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        raise UserError(f"{name}: write module:function, the module as in an import statement: no path, no .py")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{name}: cannot import {module_name}: {error}") from None
    if not hasattr(module, function_name):
        raise UserError(f"{name}: {module_name} has no {function_name or 'such function'}")
    function = getattr(module, function_name)
    if not callable(function):
        raise UserError(f"{name}: is {type(function).__name__}; a function that returns a task is needed")
    called: Callable[..., Any] = function
    return called


def _called(name: str, function: Callable[..., Any], config: Config, data: Path | None, device: torch.device) -> Any:
    """Call it with those of ``config``, ``data`` and ``device`` that it takes. Its own errors are its own to show."""
    offered = {"config": config, "data": data, "device": device}
    try:
        signature = inspect.signature(function)
        wanted = {key: value for key, value in offered.items() if key in signature.parameters}
        signature.bind(**wanted)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: may take config, data and device, nothing else: {error}") from None
    return function(**wanted)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of ``count`` examples that depends on nothing but seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def initialize(model: nn.Module, how: str) -> None:
    """Apply ``weight_init`` to every weight matrix and kernel; "default" keeps the model's own.

    Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming, gain of ReLU): variance by the fan of the matrix.
    """
    if how == "default":
        return
    for parameter in model.parameters():
        if parameter.dim() > 1:
            _INITIAL[how](parameter)


_INITIAL: dict[str, Callable[[Tensor], object]] = {
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
}
