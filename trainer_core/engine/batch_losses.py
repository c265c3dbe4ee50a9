"""The losses of the present weights on one batch, measured once however many tests ask for them. Decides nothing.

A look, the guard and a verdict at the same boundary compare other weights with these. They hold for one batch and for
one state of the weight tensors: whoever moves the weights and puts them back exactly says so with ``keep``.
"""

from collections.abc import Callable

from torch import Tensor

from trainer_core.learning.loss import Batch
from trainer_core.learning.parameters import Parameters


class BatchLosses:
    """Remembers one measurement; ``measure`` takes a batch to per-sample losses (N,)."""

    def __init__(self, parameters: Parameters, measure: Callable[[Batch], Tensor]) -> None:
        self._parameters, self._measure = parameters, measure
        self._known: tuple[Batch, list[tuple[int, int]], Tensor] | None = None

    def of(self, batch: Batch) -> Tensor:
        """Per-sample losses (N,) of the present weights on ``batch``."""
        if self._known is not None and self._known[0] is batch and self._known[1] == self._parameters.state():
            return self._known[2]
        losses_N = self._measure(batch)
        self.keep(batch, losses_N)
        return losses_N

    def keep(self, batch: Batch, losses_N: Tensor) -> None:
        """The present weights have these losses on ``batch``."""
        self._known = batch, self._parameters.state(), losses_N

    def forget(self) -> None:
        """A step is about to be trained: buffers may move where weights do not."""
        self._known = None
