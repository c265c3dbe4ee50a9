"""The gradient of one step: of the whole batch, or of micro-batches that add up to it. Moves no weights.

A mean over labels of which the pieces have unequal numbers is weighted by samples, not by labels, as in any loop that
accumulates; a piece without a label adds nothing to the gradient, and has no loss.

Several ranks average theirs (see averaging), and each of their micro-batches is one of the m below.

With micro-batches of n_i of N samples and their mean gradients g_i, the gradient is g = sum(n_i / N g_i), exactly that
of the whole batch. They also show how noisy it is (m of them, all independent):
    trace of the covariance of g:  v = (sum(n_i norm(g_i)^2) / N - norm(g)^2) / (m - 1)      unbiased
    signal to noise:               norm(g)^2 / v
"""

from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor

from trainer_core.engine import ahead
from trainer_core.learning.loss import Batch
from trainer_core.learning.optimizers import dense_refusal, sparse_refusal
from trainer_core.spec.errors import UserError

if TYPE_CHECKING:
    from trainer_core.engine.distributed import Ranks
    from trainer_core.engine.engine import Engine


class Gradients(msgspec.Struct, frozen=True):
    """What forward and backward found; the gradients themselves are in ``p.grad``, unscaled and not yet clipped."""

    loss: Tensor
    """Mean over the batch, of no dimension, on the device."""
    labelled_loss: Tensor | None
    """Mean over the micro-batches and ranks whose mean is not NaN; None with a single one."""
    norms: list[Tensor]
    """L2 norm of each parameter's gradient, no dimension."""
    noise: Tensor | None
    """Trace of the gradient's covariance over its squared norm; None with a single micro-batch."""
    micro_batches: int
    forward_seconds: float
    backward_seconds: float

    @property
    def total_norm(self) -> Tensor:
        """L2 norm of the gradient, of no dimension, on the device."""
        norm: Tensor = torch.linalg.vector_norm(torch.stack(self.norms))
        return norm


def gradients(engine: "Engine", batch: Batch) -> Gradients:
    """Forward and backward of ``batch`` in ``training.accumulate`` micro-batches.

    Memory beyond a plain step, with more than one: one more gradient. Raises UserError for a loss or gradient that
    cannot be used; no weight has moved then.
    """
    clock, parameters = engine.clock, engine.parameters
    pieces = engine.loss.pieces(batch, engine.config.training.accumulate)
    engine.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    sums: list[Tensor | None] | None = None
    squares: list[Tensor] = []
    forward = 0.0
    start = clock()
    for piece in pieces:
        begun = clock()
        loss = ahead.shared(engine, piece.batch)
        if loss is None:
            with engine.precision.forward():
                loss = engine.loss.mean(engine.model, piece.batch)
                loss = loss if piece.weight == 1.0 else loss * piece.weight
            ahead.compare(engine, loss)
        forward += clock() - begun
        _check_loss(loss, parameters.device)
        engine.precision.backward(loss)
        losses.append(loss.detach().float())
        if len(pieces) > 1 or engine.ranks is not None:
            squares.append(_square(parameters.gradient_norms()) / piece.share)
        if len(pieces) > 1:
            sums = _moved_into(sums, parameters.tensors)
    if sums is not None:
        for p, total in zip(parameters.tensors, sums, strict=True):
            p.grad = total
    _check_sparse(engine)
    loss, count = losses[0] if len(losses) == 1 else torch.stack(losses).sum(), len(pieces)
    labelled = None if len(losses) == 1 else _labelled_mean(losses, [piece.weight for piece in pieces])
    square = torch.stack(squares).sum() if squares else None
    spent = clock() - start
    if engine.ranks is not None and square is not None:
        loss, labelled, square = _averaged(engine, engine.ranks, loss, labelled, square, spent)
        count *= engine.ranks.size
    norms = parameters.gradient_norms()
    noise = None if square is None else _noise(square, _square(norms), count)
    if engine.precision.scales:
        engine.precision.unscale(engine.optimizer)
        norms = parameters.gradient_norms()
    return Gradients(
        loss=loss,
        labelled_loss=labelled,
        norms=norms,
        noise=noise,
        micro_batches=count,
        forward_seconds=forward,
        backward_seconds=spent - forward,
    )


def without_label(engine: "Engine", batch: Batch) -> bool:
    """Whether a loss of NaN means that ``batch``, or a micro-batch of it, has no label: its gradient is exactly 0 then.

    Where inputs or weights are broken it is NaN. Costs a backward pass of every micro-batch whose loss is NaN.
    """
    for piece in engine.loss.pieces(batch, engine.config.training.accumulate):
        with torch.enable_grad(), engine.precision.forward():
            loss = engine.loss.mean(engine.model, piece.batch)
        if not bool(loss.isnan()):
            continue
        found = torch.autograd.grad(loss, engine.parameters.tensors, allow_unused=True)
        if any(bool((grad != 0).any()) for grad in found if grad is not None):
            return False
    return True


def _labelled_mean(losses: list[Tensor], weights: list[float]) -> Tensor:
    """The batch's loss from those micro-batches that have one: a mean over no label is NaN."""
    losses_M = torch.stack(losses)
    known = torch.stack([~loss.isnan() * weight for loss, weight in zip(losses, weights, strict=True)])
    return losses_M.nan_to_num(0.0, torch.inf, -torch.inf).sum() * (sum(weights) / known.sum())


def _averaged(
    engine: "Engine", ranks: "Ranks", loss: Tensor, labelled: Tensor | None, square: Tensor, spent: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Average the gradients over the ranks; the means of ``loss``, of the ``labelled`` ones, of ``square``."""
    ranks.ready_seconds = spent
    labelled = loss if labelled is None else labelled
    known = (~labelled.isnan()).float()
    told = torch.stack([loss, labelled.nan_to_num(0.0, torch.inf, -torch.inf), known, square])
    loss, labelled, known, square = ranks.average(engine.parameters.tensors, told).unbind()
    ranks.share_buffers(engine.model)
    return loss, labelled / known, square


def _square(norms: list[Tensor]) -> Tensor:
    return torch.stack(norms).square().sum()


def _noise(square: Tensor, total_square: Tensor, count: int) -> Tensor:
    """v / norm(g)^2: a ratio, so a loss scale that is still on both cancels."""
    return (square - total_square).clamp_min(0.0) / ((count - 1) * total_square)


def _moved_into(sums: list[Tensor | None] | None, tensors: list[Tensor]) -> list[Tensor | None]:
    """Add the gradients to ``sums`` and take them off the parameters."""
    grads = [p.grad for p in tensors]
    for p in tensors:
        p.grad = None
    if sums is None:
        return grads
    both = [(s, g) for s, g in zip(sums, grads, strict=True) if s is not None and g is not None]
    if both and not any(s.is_sparse or g.is_sparse for s, g in both):
        torch._foreach_add_([s for s, _ in both], [g for _, g in both])
        return [g if s is None else s for s, g in zip(sums, grads, strict=True)]
    return [g if s is None else s if g is None else s + g for s, g in zip(sums, grads, strict=True)]


def _check_loss(loss: Tensor, device: torch.device) -> None:
    if loss.device != device:
        raise UserError(f"the loss is on {loss.device} and the model on {device}: loss_fn must not move it")
    if not loss.requires_grad:
        raise UserError(
            "the loss does not depend on any trainable parameter: loss_fn must not detach it or run under no_grad"
        )


def _check_sparse(engine: "Engine") -> None:
    if any((grad := p.grad) is not None and grad.is_sparse for p in engine.parameters.tensors):
        if engine.ranks is not None:
            raise UserError("sparse gradients cannot be averaged over several ranks: use sparse=False")
        refusal = sparse_refusal(engine.optimizer)
        if refusal is not None:
            raise UserError(refusal)
    refusal = dense_refusal(engine.optimizer)
    if refusal is not None and any(p.grad is not None and not p.grad.is_sparse for p in engine.parameters.tensors):
        raise UserError(refusal)
