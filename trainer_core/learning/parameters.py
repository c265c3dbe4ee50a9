"""The trainable parameters as one flat float32 vector and back; moving weights in place. Knows no phase.

Shapes: P is the number of trainable scalars (tied parameters counted once).
"""

import math
from collections.abc import Iterable, Sequence
from operator import is_

import torch
from torch import Tensor, nn

from trainer_core.spec.errors import UserError


class Parameters:
    """The distinct trainable parameters of a model, in the order of ``named_parameters``.

    ``held``: only these are moved by the optimizer; None means all. The rest stays as it is and is not watched.
    """

    _moving: Sequence[Tensor] = ()
    """Trainable tensors that the optimizer held at the beginning, in its order."""
    _work: tuple[Tensor, list[Tensor]] | None = None
    """The vector that ``work`` gave, and its views: to make them anew takes longer than a pass over a small model."""

    def __init__(self, model: nn.Module, held: Iterable[Tensor] | None = None) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise UserError(f"{type(model).__name__} has no trainable parameters: nothing could be learned")
        if held is not None:
            moved = list(held)
            named = _held(model, named, moved)
            self._moving = [p for p in moved if p.requires_grad]
        uninitialized = [name for name, p in named if isinstance(p, nn.parameter.UninitializedParameter)]
        if uninitialized:
            raise UserError(f"{uninitialized[0]} has no shape yet: run one forward pass before training starts")
        complex_ = [name for name, p in named if not p.dtype.is_floating_point]
        if complex_:
            raise UserError(
                f"{complex_[0]} is {dict(named)[complex_[0]].dtype}: parameters must be real floating point"
            )
        devices = {p.device for _, p in named}
        if len(devices) > 1:
            raise UserError(f"the model's parameters are on several devices ({', '.join(map(str, devices))}); use one")
        self.names = tuple(name for name, _ in named)
        self.tensors: list[Tensor] = [p for _, p in named]
        self.sizes = [p.numel() for p in self.tensors]
        self.count = sum(self.sizes)
        self.device = self.tensors[0].device
        self._single = all(p.dtype is torch.float32 for p in self.tensors)
        self._wide = any(p.dtype is torch.float64 for p in self.tensors)
        self.narrow = any(p.dtype.itemsize < 4 for p in self.tensors)
        """Whether some have fewer than 32 bits, in which a small change may be none."""
        self.layers, self._layer_of = _layers(self.names)

    def check_same(self, held: Iterable[Tensor]) -> None:
        """Raises UserError when the optimizer moves other tensors than at the beginning: some were frozen, or added.

        What is predicted, undone and saved was settled then.
        """
        now = [p for p in held if p.requires_grad]
        if len(now) != len(self._moving) or not all(map(is_, now, self._moving)):
            raise UserError(
                f"the optimizer moved {len(self._moving)} trainable tensors when the run began and other ones "
                f"({len(now)}) now: freeze, unfreeze or add parameters before the "
                "trainer is made, and make a new one for each stage"
            )

    def check_models(self, model: nn.Module) -> None:
        """Raises UserError when some are no longer the model's: what is trained is then not what it computes with."""
        present = {id(p) for p in model.parameters()}
        lost = [name for name, p in zip(self.names, self.tensors, strict=True) if id(p) not in present]
        if lost:
            raise UserError(
                f"{lost[0]} is no longer the tensor that is trained ({len(lost)} were replaced in the run): copy "
                "values into a parameter, or replace it before the optimizer and the trainer are made"
            )

    def empty(self) -> Tensor:
        """A vector of P zeros on the parameters' device."""
        return torch.zeros(self.count, dtype=torch.float32, device=self.device)

    def work(self) -> Tensor:
        """The vector of P zeros that lives as long as the parameters, for those who move weights every step."""
        if self._work is None:
            vector_P = self.empty()
            self._work = vector_P, self.views(vector_P)
        return self._work[0]

    def views(self, vector_P: Tensor) -> list[Tensor]:
        """``vector_P`` seen as one tensor per parameter; writing to a view writes to the vector."""
        if self._work is not None and self._work[0] is vector_P:
            return self._work[1]
        return [v.view(p.shape) for v, p in zip(vector_P.split(self.sizes), self.tensors, strict=True)]

    @torch.no_grad()
    def read(self, out_P: Tensor) -> Tensor:
        """Copy the weights into ``out_P`` and return it."""
        torch._foreach_copy_(self.views(out_P), self.tensors)
        return out_P

    def keep(self, room_P: Tensor) -> Tensor:
        """Copy the weights so that ``write`` puts them back bit for bit, and return the copy.

        It lies in ``room_P`` (P,) float32, which holds every narrower type exactly; float64 weights get a new vector.
        """
        return self.read(torch.empty_like(room_P, dtype=torch.float64) if self._wide else room_P)

    @torch.no_grad()
    def change_since(self, before_P: Tensor, out_P: Tensor) -> Tensor:
        """w - before, written into ``out_P`` (P,) float32, and returned. That is ``before_P`` itself but where it holds
        more digits: of weights of float64 what a small step changes is below the last one that float32 has."""
        views = self.views(before_P.neg_())
        torch._foreach_add_(views, self.tensors)
        if before_P is not out_P:
            torch._foreach_copy_(self.views(out_P), views)
        return out_P

    @torch.no_grad()
    def norms(self) -> list[Tensor]:
        """L2 norm of each parameter, scalars on their device, float32."""
        return self._norms(self.tensors)

    def state(self) -> list[tuple[int, int]]:
        """Where each weight tensor lives and how often it was written in place: equal states mean equal weights."""
        return [(p.data_ptr(), p._version) for p in self.tensors]

    @torch.no_grad()
    def add(self, delta_P: Tensor, scale: float = 1.0) -> None:
        """w <- w + scale * delta, in place."""
        torch._foreach_add_(self.tensors, [v.to(p.dtype) for v, p in self._pairs(delta_P)], alpha=scale)

    @torch.no_grad()
    def write(self, weights_P: Tensor) -> None:
        """w <- weights_P, in place: exact, unlike adding and subtracting a delta."""
        torch._foreach_copy_(self.tensors, self.views(weights_P))

    @torch.no_grad()
    def gradient_norms(self) -> list[Tensor]:
        """L2 norm of each parameter's gradient, scalars on their device, float32; 0 where it has none."""
        grads = [p.grad for p in self.tensors]
        if all(g is not None and not g.is_sparse for g in grads):
            return self._norms(grads)  # type: ignore[arg-type]
        zero = torch.zeros((), device=self.device)
        return [zero if g is None else _norm(g) for g in grads]

    def layer_norms(self, norms: Sequence[float]) -> tuple[float, ...]:
        """Norms of the parameters -> norms of the layers (``self.layers``)."""
        squares = [0.0] * len(self.layers)
        for layer, norm in zip(self._layer_of, norms, strict=True):
            squares[layer] += norm * norm
        return tuple([math.sqrt(square) for square in squares])

    def _norms(self, tensors: list[Tensor]) -> list[Tensor]:
        norms = torch._foreach_norm(tensors)
        return list(norms) if self._single else [n.float() for n in norms]

    def _pairs(self, vector_P: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(self.views(vector_P), self.tensors, strict=True)


def whole_norm(norms: Sequence[float]) -> float:
    """L2 norm of a vector from those of its parts."""
    return math.sqrt(sum([norm * norm for norm in norms]))


def _held(
    model: nn.Module, named: list[tuple[str, nn.Parameter]], moved: list[Tensor]
) -> list[tuple[str, nn.Parameter]]:
    """The named parameters among those that the optimizer moves, all of which must be the model's."""
    ids, own = {id(p) for p in moved}, {id(p) for p in model.parameters()}
    found = [(name, p) for name, p in named if id(p) in ids]
    if not found:
        raise UserError("the optimizer holds none of the model's trainable parameters: it was made for another model")
    foreign = [tuple(p.shape) for p in moved if p.requires_grad and id(p) not in own]
    if foreign:
        raise UserError(
            f"the optimizer also moves trainable parameters that are not the model's ({len(foreign)}, the first of "
            f"shape {foreign[0]}): no checkpoint would hold them; make them part of the model, as a module of it"
        )
    return found


def _norm(gradient: Tensor) -> Tensor:
    dense = gradient.coalesce().values() if gradient.is_sparse else gradient
    norm: Tensor = torch.linalg.vector_norm(dense, dtype=torch.float32)
    return norm


def _layers(names: Iterable[str]) -> tuple[tuple[str, ...], list[int]]:
    """Layer names (a parameter's name without its last part) and the layer index of each parameter."""
    owners = [name.rpartition(".")[0] or name for name in names]
    layers = tuple(dict.fromkeys(owners))
    return layers, [layers.index(owner) for owner in owners]
