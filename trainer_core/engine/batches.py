"""The user's batches as one stream, epoch after epoch. Trains on none of them."""

from collections.abc import Iterable, Iterator

from trainer_core.engine.distributed import Ranks
from trainer_core.learning.loss import Batch
from trainer_core.spec.errors import UserError


def stream(batches: Iterable[Batch], skip: int, one_pass: bool) -> Iterator[Batch]:
    """The batches, over and over, without the first ``skip`` of the stream. Raises UserError when there are none."""
    seen = 0
    while True:
        before = seen
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
