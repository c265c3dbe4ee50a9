"""What tests of predictions may cost: they live on what kept predictions saved. Knows no tensors and no phases.

In full steps; a forward pass counts as a third of one.

    credit   1 at first; + 0.01 for each full step; + min(6, H / 16) for a kept prediction of H steps, - 5 for one
             that was taken back, - 2 for one whose probe said a plain no; at most 20
    a look   needs a credit of 1, and pays what it took

So where predictions do not pay, looks for them cost one full step and 1 % of the rest. Corrections that did not help
are tried again after 1, 3, 7, ... 63 predictions, and one refused proposal in four is measured again as a shadow.
"""

import math
from typing import Any

FIRST, MOST, LEAST = 1.0, 20.0, 1.0
FULL_STEP = 0.01
_KEPT, _PER_STEP, _UNDONE, _PLAIN_NO = 6.0, 1 / 16, 5.0, 2.0
_FORWARD = 1 / 3
_SHADOW_EVERY = 4
_LONGEST_WAIT = 63


class Budget:
    """One run's credit for looks, and the waits of corrections and shadows."""

    def __init__(self) -> None:
        self.credit = FIRST
        self.vain = 0
        """Corrections in a row that did not help."""
        self._wait = 0
        self._refused = 0

    def full_step(self) -> None:
        """A full step was trained."""
        self._earn(FULL_STEP)

    def kept(self, steps: int) -> None:
        """A prediction of so many steps was kept."""
        self._earn(min(_KEPT, steps * _PER_STEP))

    def undone(self) -> None:
        """A prediction was taken back."""
        self.credit -= _UNDONE

    def refuted(self) -> None:
        """A prediction would have done harm beyond doubt."""
        self.credit -= _PLAIN_NO

    def looked(self, forwards: float) -> None:
        """A look took so many forward passes."""
        self.credit -= forwards * _FORWARD

    @property
    def steps_to_next(self) -> int:
        """Full steps until the next look can be paid."""
        return max(0, math.ceil((LEAST - self.credit) / FULL_STEP - 1e-9))

    def wanted(self) -> None:
        """Somebody asks for predictions: begin anew."""
        self.credit = max(self.credit, FIRST)

    def shadow_due(self) -> bool:
        """A proposal was refused: whether to measure this one again."""
        self._refused += 1
        return self._refused % _SHADOW_EVERY == 1

    def correction_due(self) -> bool:
        """Whether a correction is worth its forward passes now; asked once for each."""
        if self._wait == 0:
            return True
        self._wait -= 1
        return False

    def corrected(self, helped: bool) -> None:
        """A correction was tried."""
        self.vain = 0 if helped else self.vain + 1
        self._wait = 0 if helped else min(2**self.vain - 1, _LONGEST_WAIT)

    def _earn(self, steps: float) -> None:
        self.credit = min(MOST, self.credit + steps)

    def state_dict(self) -> dict[str, Any]:
        return {"credit": self.credit, "vain": self.vain, "wait": self._wait, "refused": self._refused}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.credit, self.vain = float(state["credit"]), int(state["vain"])
        self._wait, self._refused = int(state["wait"]), int(state["refused"])
