"""What of a run's steps still stands where attempts went back and on again. Knows no file and no record.

An attempt goes on from a checkpoint, which need not be of the attempt before: who rolled back too far goes forward
again by name, and what had been given up stands once more. So nothing is forgotten: each branch keeps what it did, and
the way to the present step says how far into each branch it leads.
"""

import sys
from array import array
from bisect import bisect_right
from typing import Any

from trainer_core.spec.phases import Phase

Way = list[tuple[int, int]]
"""(branch, last step of it that stands), from the first branch to the present one."""


class Branches:
    """Which attempt went on from where in which other one. Branches are numbered as they began, from 0."""

    def __init__(self) -> None:
        self.now = 0
        self._came: list[tuple[int, int] | None] = [None]
        """By branch: (branch, step) that it went on from."""
        self._of_attempt = {0: 0}
        self._saved: dict[str, int] = {}
        """The branch that wrote each checkpoint."""

    def saved(self, checkpoint: str) -> None:
        """The present branch wrote a checkpoint."""
        self._saved[checkpoint] = self.now

    def begin(self, attempt: int, parent: int, checkpoint: str | None, step: int) -> None:
        """``attempt`` goes on from ``checkpoint`` at ``step``; of one that nobody knows of, from attempt ``parent``."""
        source = self._saved.get(checkpoint or "", self._of_attempt.get(parent, self.now))
        self._came.append((source, step))
        self.now = self._of_attempt[attempt] = len(self._came) - 1

    def shorten(self, step: int) -> None:
        """The present branch went on from ``step`` at the latest: a journal may lack the record of a rollback."""
        came = self._came[self.now]
        if came is not None and came[1] > step:
            self._came[self.now] = came[0], step

    def way(self) -> Way:
        """The way to the present step."""
        found, branch, upto = [(self.now, sys.maxsize)], self.now, sys.maxsize
        while (came := self._came[branch]) is not None:
            branch, upto = came[0], min(upto, came[1])
            found.append((branch, upto))
        return found[::-1]


class SurvivingPath:
    """Phases and losses of the steps that stand."""

    def __init__(self) -> None:
        self.branches = Branches()
        self._own = [_Branch()]

    def begin(self, attempt: int, parent: int, checkpoint: str | None, step: int) -> None:
        """Another attempt: see ``Branches.begin``."""
        self.branches.begin(attempt, parent, checkpoint, step)
        self._own.append(_Branch())

    def went(self, first: int, last: int, phase: Phase) -> None:
        """Steps ``first..last`` were taken in ``phase``; what stood at or after ``first`` is replaced."""
        self.branches.shorten(first - 1)
        self._own[-1].went(first, last, phase)

    def measured(self, step: int, loss: float) -> None:
        """The loss of a step that was taken."""
        self._own[-1].measured(step, loss)

    def per_phase(self) -> dict[Phase, int]:
        """Steps by phase, all four of them."""
        counts = dict.fromkeys(Phase, 0)
        for branch, upto in self.branches.way():
            for first, last, phase in self._own[branch].stretches:
                counts[phase] += max(0, min(last, upto) - first + 1)
        return counts

    @property
    def last_loss(self) -> float | None:
        """None: none was measured, or none stands."""
        found = (self._own[branch].last_loss(upto) for branch, upto in reversed(self.branches.way()))
        return next((loss for loss in found if loss is not None), None)


class _Branch:
    """What one attempt did, in the order of its steps."""

    def __init__(self) -> None:
        self.stretches: list[tuple[int, int, Phase]] = []
        self._steps, self._losses = array("q"), array("d")

    def went(self, first: int, last: int, phase: Phase) -> None:
        self._back_to(first - 1)
        if self.stretches and self.stretches[-1][1:] == (first - 1, phase):
            first = self.stretches.pop()[0]
        self.stretches.append((first, last, phase))

    def measured(self, step: int, loss: float) -> None:
        self._steps.append(step)
        self._losses.append(loss)

    def _back_to(self, step: int) -> None:
        while self.stretches and self.stretches[-1][1] > step:
            begin, _, phase = self.stretches.pop()
            if begin <= step:
                self.stretches.append((begin, step, phase))
        while self._steps and self._steps[-1] > step:
            self._steps.pop()
            self._losses.pop()

    def last_loss(self, upto: int) -> float | None:
        index = bisect_right(self._steps, upto) - 1
        return self._losses[index] if index >= 0 else None


class Columns:
    """The steps that one attempt reached, what had been paid by each, and the losses measured on the way.

    ``backward`` and ``charged``: backward passes and seconds of all attempts when it began.
    """

    def __init__(self, backward: int, charged: float) -> None:
        self._began = backward, charged
        self.steps, self.backward = array("q"), array("q")
        self.charged, self.plain, self.ema = array("d"), array("d"), array("d")
        self.validations: list[tuple[int, float]] = []

    def reached(self, step: int, backward: int, charged: float, plain: float, ema: float) -> None:
        """A step, and the columns' values there; what stood at or after it is replaced."""
        while self.steps and self.steps[-1] >= step:
            for column in self._columns:
                column.pop()
        for column, value in zip(self._columns, (step, backward, charged, plain, ema), strict=True):
            column.append(value)

    @property
    def _columns(self) -> tuple[Any, ...]:
        return self.steps, self.backward, self.charged, self.plain, self.ema

    def _count(self, upto: int) -> int:
        return bisect_right(self.steps, upto)

    def last(self, upto: int) -> int | None:
        """The last step at or before ``upto``."""
        count = self._count(upto)
        return self.steps[count - 1] if count else None

    def behind(self, upto: int) -> tuple[int, float]:
        """Backward passes and seconds of the steps behind ``upto``."""
        count = self._count(upto)
        if count == len(self.steps):
            return 0, 0.0
        passes, seconds = (self.backward[count - 1], self.charged[count - 1]) if count else self._began
        return self.backward[-1] - passes, self.charged[-1] - seconds

    def go_on_with(self, other: "Columns", upto: int) -> None:
        """The steps of ``other`` up to ``upto`` follow."""
        count = other._count(upto)
        for mine, its in zip(self._columns, other._columns, strict=True):
            mine.extend(its[:count])
        self.validations += [v for v in other.validations if v[0] <= upto]
