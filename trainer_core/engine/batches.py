"""The user's batches as one stream, epoch after epoch, and where in it a run is. Trains on none of them.

A loader that shuffles draws the order of an epoch from random numbers when the epoch begins. Their state then is kept
and saved: a run that goes on in the middle of an epoch skips what it was trained on, and gets the rest of that epoch.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainer_core.engine.randomness import random_state, set_random_state
from trainer_core.learning.loss import Batch, batch_size
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import AlertRaised, AlertResolved
from trainer_core.spec.severity import Severity

if TYPE_CHECKING:
    from trainer_core.engine.distributed import Ranks
    from trainer_core.engine.engine import Engine

NO_MORE: Any = object()
"""What comes after the last batch: a batch may be None, or anything."""
_MOST_EMPTY = 100
"""Empty batches in a row that are no accident any more."""


class Data:
    """What a run reads, and the epoch it is in."""

    def __init__(self) -> None:
        self._epoch = self._first = 0
        """The epoch, and the batches of the stream before it."""
        self._then: dict[str, Any] | None = None
        """The random numbers when it began; None: before one, or nothing is drawn from them."""
        self._iterator: Iterator[Batch] | None = None
        """One of the caller's own, which is where it is and cannot begin again."""
        self._empty = 0
        self.keep: Callable[[str], object] = lambda because: None
        """Saves a checkpoint, where one process can; set by whoever owns the files."""

    def stream(self, batches: Iterable[Batch], skip: int, one_pass: bool) -> Iterator[Batch]:
        """The batches, over and over, without the first ``skip`` of the stream. Raises UserError when there are none.

        A loader whose sampler has ``set_epoch``, as DistributedSampler, is told the epoch. What is skipped leaves the
        random numbers as they are. An iterator that the run was reading already goes on where it is.
        """
        goes_on = self._iterator is batches
        self._iterator = batches if isinstance(batches, Iterator) else None
        now = random_state() if skip > 0 and not goes_on else None
        seen, epoch = (skip if goes_on else 0), 0
        if self._then is not None and self._first <= skip and _drawn_at_its_start(batches):
            seen, epoch = self._first, self._epoch  # of the epochs before nothing is needed
        set_epoch = getattr(getattr(batches, "sampler", None), "set_epoch", None)
        for number in itertools.count(epoch):
            before = seen
            if callable(set_epoch):
                set_epoch(number)
            self._begin(batches, number, seen, skip)
            for batch in batches:
                seen += 1
                if seen > skip:
                    yield batch
                elif seen == skip and now is not None:
                    set_random_state(now)
            if seen == before:
                raise UserError(self._used_up(seen))
            if one_pass:
                return

    def _used_up(self, seen: int) -> str:
        """The sentence about data that ends too soon; what was learned from it is saved."""
        if seen == 0:
            return "there are no batches: the data is empty"
        self.keep("the batches are used up")
        return (
            f"the batches are used up after {seen:,} and cannot be iterated again: give a list or a DataLoader instead "
            "of an iterator, or fewer steps"
        )

    def _begin(self, batches: Iterable[Batch], number: int, seen: int, skip: int) -> None:
        """An epoch begins after ``seen`` batches: as it did, if it is the one the run was in; else note how."""
        if isinstance(batches, (list, tuple, Iterator)):
            return
        generators = _generators(batches)
        if self._then is not None and seen == self._first and seen <= skip:
            set_random_state(self._then)
            for generator, state in zip(generators, self._then["generators"], strict=False):
                generator.set_state(state.cpu())
        elif seen >= skip:
            self._epoch, self._first = number, seen
            self._then = random_state() | {"generators": [g.get_state() for g in generators]}

    def passes_over(self, engine: "Engine", batch: Batch) -> bool:
        """Whether a batch has no samples. It counts as read, so that a resumed run does not meet it; an alert says so.

        Where there is nothing but such batches, a step is to refuse one.
        """
        self._empty = self._empty + 1 if batch_size(batch) == 0 else 0
        if not 0 < self._empty <= _MOST_EMPTY:
            return False
        step, number = engine.step_count, engine.batches
        engine.batches += 1
        text = f"batch {number} of the data is empty (0 samples) and was passed over: look at what filters it"
        alert = AlertRaised(step, f"empty-{number}", "empty batch", Severity.WARNING, "batch", None, None, text)
        engine.record(alert)
        engine.record(AlertResolved(step, alert.alert_id, alert.rule, "training goes on with the next batch"))
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "first": self._first, "then": self._then}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """None: of a checkpoint of before this was kept."""
        if state is not None:
            self._epoch, self._first, self._then = state["epoch"], state["first"], state["then"]


def until_one_ends(batches: Iterator[Batch], ranks: "Ranks") -> Iterator[Batch]:
    """This rank's batches, until any rank has had its last one: known to all by fetching one ahead."""
    for held in batches:
        for batch in batches:
            yield held
            if ranks.exhausted:
                return
            held = batch
        ranks.last_batch = True
        yield held


def _drawn_at_its_start(batches: Iterable[Batch]) -> bool:
    """Whether an epoch is what its number and the random numbers at its start make it: torch's own loader and order.

    Others may count their epochs themselves, and are iterated from the first one.
    """
    if type(batches) is not DataLoader or isinstance(batches.dataset, IterableDataset):
        return False
    return all(type(part).__module__.startswith("torch.") for part in (batches.sampler, batches.batch_sampler))


def _generators(batches: Iterable[Batch]) -> list[torch.Generator]:
    """Random numbers of a loader's own."""
    owners = (batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
