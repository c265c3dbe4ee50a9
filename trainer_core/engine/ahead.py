"""One forward pass for two uses: a look's at the horizon, and that of CORRECT's first step, on the same batch.

A look measures the losses where a prediction would end. If it is made and runs its course, CORRECT begins there, with
the same weights and the same batch: what is left of its first step is the backward pass. Whether sharing changes
nothing is not assumed but seen: the first such step computes its own forward pass as well, and only a loss that is
equal to the last bit, of a pass that wrote to no buffer and drew no random number, lets later ones share theirs.
Decides nothing about predictions.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from trainer_core.engine.randomness import drawn
from trainer_core.learning.loss import Batch

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
_WITH_STATISTICS = (nn.modules.batchnorm._NormBase,)


class Arrival(NamedTuple):
    """What a look found at the horizon."""

    batch: Batch
    losses_N: Tensor
    """Of the samples that tests compare (see measuring)."""
    whole_N: Tensor | None
    """Of all samples; None where only those were measured."""
    loss: Tensor | None
    """The batch's mean with its graph, ready for the backward pass; None where a step needs a pass of its own."""


def may_share(engine: "Engine") -> bool:
    """Whether a forward pass in evaluation mode may be what a training step would have computed.

    Not with micro-batches, a loss scale, several ranks or a compiled model, which have passes of their own; nor with
    layers that train differently or a loss that draws random numbers; nor where the losses were seen to differ.
    """
    training = engine.config.training
    return (
        engine.shares is not False
        and not engine.draws
        and engine.loss.per_sample
        and training.accumulate == 1
        and not training.compile
        and not engine.precision.scales
        and engine.ranks is None
        and not any(_differs(module) or _compiled(module) for module in engine.model.modules())
    )


def _differs(module: nn.Module) -> bool:
    if isinstance(module, _RANDOM):
        return bool(getattr(module, "p", 1.0))
    if isinstance(module, _WITH_STATISTICS):
        return True
    dropout = vars(module).get("dropout")  # attention and recurrent layers have it as a number
    return isinstance(dropout, float) and dropout > 0


def _compiled(module: nn.Module) -> bool:
    """Whether the user compiled it: in place, or as a module around it."""
    return vars(module).get("_compiled_call_impl") is not None or "_orig_mod" in module._modules


def arrived(engine: "Engine", batch: Batch) -> Arrival:
    """Measure ``batch`` at a horizon, with the graph of its mean where that may be shared."""
    if not may_share(engine):
        return Arrival(batch, engine.samples(batch), None, None)
    # The graph outlives a walk back to the departure and a second arrival, which is the first one bit for bit. Tensors
    # that go through hooks are not checked against having been written to in between. They must not bring their own
    # graph with them: a node that holds its output, which holds the node, is freed by nobody.
    with (
        torch.enable_grad(),
        engine.measuring.mode(),
        torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, _same),
        engine.precision.forward(),
    ):
        raw = engine.loss.raw(engine.model, batch)
        mean = raw.mean()
    if raw.dim() == 0:  # one value per sample in training only
        return Arrival(batch, engine.samples(batch), None, None)
    engine.forwards += 1.0
    whole_N = raw.detach().float()
    return Arrival(batch, engine.measuring.compared(batch, whole_N), whole_N, mean)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def shared(engine: "Engine", batch: Batch) -> Tensor | None:
    """The loss of the coming step on ``batch``, when a look has computed it and sharing was seen to change nothing."""
    flight = engine.flight
    if flight is None or flight.arrival is None or flight.taken != flight.horizon or engine.steps_in_phase > 0:
        return None
    arrival, flight.arrival = flight.arrival, None
    if arrival.loss is None or arrival.batch is not batch:
        return None
    if engine.shares is None:
        engine.shared_loss = arrival.loss.detach(), _beside(engine)
        return None
    engine.forwards -= 1.0  # it is the step's own now
    engine.budget.looked(-1)
    return arrival.loss


def compare(engine: "Engine", loss: Tensor) -> None:
    """A step has computed a forward pass of its own: was it the look's, to the last bit, and nothing else?"""
    expected, engine.shared_loss = engine.shared_loss, None
    if expected is not None:
        engine.shares = bool(torch.equal(expected[0], loss.detach())) and expected[1] == _beside(engine)


def _beside(engine: "Engine") -> tuple[object, ...]:
    """What a forward pass may change beside its loss: statistics of the model's own, and random numbers."""
    strided = torch.strided  # others have no address
    found = engine.model.buffers()
    buffers = [(id(b), b.data_ptr() if b.layout is strided else 0, b._version) for b in found]
    return buffers, drawn(engine.parameters.device)
