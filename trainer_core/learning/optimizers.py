"""The optimizers a configuration can name, each one torch Optimizer. Knows no phase and no schedule."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer_core.learning.orthogonaliser import FactoredMuon
from trainer_core.spec.config import Config, OptimizerConfig
from trainer_core.spec.errors import ConfigError, UserError

Parameters = list[nn.Parameter]
_FUSED_DEVICES = ("cuda", "cpu")
_MUON_RATE = 0.02
_DEFAULT_RATE = 1e-3


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``[optimizer] type`` names, over the trainable parameters of ``model``.

    Raises ConfigError when it has none Muon is for."""
    o = config.optimizer
    rate = config.learning_rate.initial if config.learning_rate.initial is not None else _DEFAULT_RATE
    parameters = [p for p in model.parameters() if p.requires_grad]
    betas = (o.beta1, o.beta2)
    match o.type:
        case "AdamW":
            return torch.optim.AdamW(parameters, rate, betas, weight_decay=o.weight_decay, fused=_fused(parameters))
        case "Adam":
            return torch.optim.Adam(parameters, rate, betas, weight_decay=o.weight_decay, fused=_fused(parameters))
        case "SGD":
            return torch.optim.SGD(parameters, rate, momentum=o.beta1, weight_decay=o.weight_decay)
        case "Muon":
            return _muon(model, rate, o)


def _muon(model: nn.Module, rate: float, o: OptimizerConfig) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"[optimizer] type = 'Muon' needs torch 2.9 or newer; this is {torch.__version__}: use 'AdamW'"
        )
    matrices, rest = body_matrices(model)
    if not matrices:
        raise ConfigError(
            f"[optimizer] type = 'Muon': {type(model).__name__} has no weight matrix between its input and its output "
            "layer, which is what Muon is for; use 'AdamW'"
        )
    muon_rate = o.muon_lr
    if muon_rate is None:
        muon_rate = _MUON_RATE if o.muon_scale == "original" else 2 * rate
    adamw = torch.optim.AdamW(
        [{"params": rest}], rate, (o.beta1, o.beta2), weight_decay=o.weight_decay, fused=_fused(rest)
    )
    matrix_settings: dict[str, Any] = {
        "lr": muon_rate,
        "momentum": o.muon_momentum,
        "weight_decay": o.weight_decay,
        "adjust_lr_fn": o.muon_scale,
    }
    muon = FactoredMuon(matrices, o.orthogonaliser_every, o.orthogonaliser_confidence, **matrix_settings)
    return Joined(adamw, muon)


def body_matrices(model: nn.Module) -> tuple[Parameters, Parameters]:
    """(weight matrices of the body, the rest) of the trainable parameters; Muon trains the first, AdamW the second.

    A matrix of the body has two dimensions, belongs to no embedding (nor is tied to one), and is not the model's last
    matrix, which maps to the outputs. Convolution kernels have more dimensions and are in the rest, like biases and
    norms: Jordan et al. 2024 ("Muon: an optimizer for hidden layers"), and no claim is made for flattened kernels.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    embedded = {
        id(p) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()
    }
    matrices = [p for p in trainable if p.dim() == 2]
    body = {id(p) for p in matrices[:-1] if id(p) not in embedded}
    return [p for p in trainable if id(p) in body], [p for p in trainable if id(p) not in body]


def _fused(parameters: Parameters) -> bool | None:
    """True where torch has the one-kernel version; None lets torch choose."""
    usable = all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in parameters)
    return True if usable and parameters else None


class Joined(torch.optim.Optimizer):
    """Several optimizers that behave as one: their groups in order, one state, one step, one state_dict.

    The groups and the state are the inner optimizers' own objects, so a rate set here is the rate they use.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self.parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[start : start + count]
            part.state = self.state
            start += count

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Each part's step. ``closure`` is evaluated once, before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave, in every part."""
        super().load_state_dict(state_dict)
        self._share()

    @property
    def factored(self) -> FactoredMuon | None:
        """The part whose orthogonaliser is predicted, if one's is."""
        return factored(*self.parts)


def factored(*optimizers: torch.optim.Optimizer) -> FactoredMuon | None:
    """The first Muon among ``optimizers``, or joined in one of them, that predicts its orthogonaliser."""
    for optimizer in optimizers:
        if isinstance(optimizer, FactoredMuon) and optimizer.every > 1:
            return optimizer
        if isinstance(optimizer, Joined) and optimizer.factored is not None:
            return optimizer.factored
    return None


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raises UserError for an optimizer that cannot train ``model`` one step at a time."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"optimizer = {optimizer!r:.100}: must be a torch.optim.Optimizer")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UserError("LBFGS needs a closure and several evaluations a step: use a first-order torch.optim optimizer")
    _, *asked = inspect.signature(type(optimizer).step).parameters.values()  # a scheduler hides the object's own
    wanted = [parameter.name for parameter in asked if _must_be_given(parameter)]
    if wanted:
        raise UserError(
            f"{type(optimizer).__name__}.step needs {', '.join(wanted)}: use an optimizer that steps by the gradients "
            "that are there"
        )
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise UserError(
            f"{type(optimizer).__name__} with maximize = True climbs the loss, and lower is better in every test and "
            "alert here: have loss_fn return the negative, and leave maximize out"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    _check_where(optimizer, model)
    sparse = [m for m in model.modules() if getattr(m, "sparse", False) is True]
    if any(id(p) in held and p.requires_grad for m in sparse for p in m.parameters(recurse=False)):
        refusal = sparse_refusal(optimizer)
        if refusal is not None:
            raise UserError(refusal)


def _check_where(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raises UserError for what torch refuses at the first step only."""
    name = type(optimizer).__name__
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise UserError(f"{name} with differentiable = True is for a loss that holds its step: leave it out")
    on_host = any(p.device.type == "cpu" for p in model.parameters())
    if on_host and any(group.get("capturable") for group in optimizer.param_groups):
        raise UserError(f"{name} with capturable = True is for CUDA graphs, and the model is on the CPU: leave it out")


def _must_be_given(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not variadic


_SPARSE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam)


def sparse_refusal(optimizer: torch.optim.Optimizer) -> str | None:
    """Why ``optimizer`` cannot take sparse gradients, in a sentence; None when it can, or is not torch's own."""
    if isinstance(optimizer, Joined):
        return next((why for part in optimizer.parts if (why := sparse_refusal(part)) is not None), None)
    name = type(optimizer).__name__
    if isinstance(optimizer, _SPARSE):
        if any(group.get("weight_decay") for group in optimizer.param_groups):
            return f"{name} with weight decay cannot take sparse gradients (of Embedding sparse=True): use 0"
        return None
    if not type(optimizer).__module__.startswith(("torch.optim", "trainer_core")):
        return None
    return f"{name} cannot take sparse gradients (of Embedding sparse=True): use SGD, Adagrad or SparseAdam"


def dense_refusal(optimizer: torch.optim.Optimizer) -> str | None:
    """Why ``optimizer`` cannot take gradients that are not sparse, in a sentence; None when it can."""
    if not isinstance(optimizer, torch.optim.SparseAdam):
        return None
    return (
        "SparseAdam takes sparse gradients alone (of Embedding sparse=True), and a layer has others: use SGD or Adagrad"
    )
