"""The user's batches as one stream, epoch after epoch. Trains on none of them."""

import itertools
from collections.abc import Iterable, Iterator

from trainer_core.engine.distributed import Ranks
from trainer_core.learning.loss import Batch
from trainer_core.spec.errors import UserError


def stream(batches: Iterable[Batch], skip: int, one_pass: bool) -> Iterator[Batch]:
    """The batches, over and over, without the first ``skip`` of the stream. Raises UserError when there are none.

    A loader whose sampler has ``set_epoch``, as DistributedSampler, is told the epoch.
    """
    seen = 0
    set_epoch = getattr(getattr(batches, "sampler", None), "set_epoch", None)
    for epoch in itertools.count():
        before = seen
        if callable(set_epoch):
            set_epoch(epoch)
        for batch in batches:
            seen += 1
            if seen > skip:
                yield batch
        if seen == before:
            empty = "there are no batches: the data is empty"
            raise UserError(empty if seen == 0 else "the batches are used up and cannot be iterated again")
        if one_pass:
            return


def until_one_ends(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """This rank's batches, until any rank has had its last one: known to all by fetching one ahead."""
    for held in batches:
        for batch in batches:
            yield held
            if ranks.exhausted:
                return
            held = batch
        ranks.last_batch = True
        yield held
