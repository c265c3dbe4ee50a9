"""Claims about the data of a run: what `run` reads, what it skips, and what a resumed run reads of it."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from tests.engine.rig import EAGER, batch_of, network, per_sample
from trainer_core import HybridTrainer
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import AlertRaised, Record, StepRecord

Pair = tuple[Tensor, Tensor]


class Counted(Dataset[Pair]):
    """Seven batches of 8 points; it knows which were asked for. ``noise``: drawn anew for each."""

    def __init__(self, noise: float = 0.0) -> None:
        x, y = zip(*(batch_of(index) for index in range(2)), strict=True)
        self.x, self.y, self.noise = torch.cat(x)[:56], torch.cat(y)[:56], noise
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Pair:
        self.asked.append(index)
        return self.x[index] + self.noise * torch.randn(8), self.y[index]


def shuffled(data: Dataset[Pair]) -> DataLoader[Pair]:
    return DataLoader(data, 8, shuffle=True)


def with_a_generator(data: Dataset[Pair]) -> DataLoader[Pair]:
    return DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(3))


def in_workers(data: Dataset[Pair]) -> DataLoader[Pair]:
    return DataLoader(data, 8, shuffle=True, num_workers=1)


class Own:
    """A loader of one's own, which shuffles."""

    def __init__(self, data: Dataset[Pair]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Pair]:
        for part in torch.randperm(56).split(8):
            x, y = zip(*(self.data[int(index)] for index in part), strict=True)
            yield torch.stack(x), torch.stack(y)


def trainer(folder: Path, steps: int | None = 60, **given: Any) -> HybridTrainer:
    torch.manual_seed(5)
    model = given.pop("model", None) or network(dropout=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    return HybridTrainer(model, optimizer, per_sample, EAGER, folder, total_steps=steps, serve=False, **given)


def cut(folder: Path, step: int, batches: Iterable[Pair], **given: Any) -> int:
    """A run that is stopped after ``step``; the batches it read."""

    def stop(record: Record, attempt: int) -> None:
        if isinstance(record, StepRecord) and record.step >= step:
            t.stop_soon()

    with trainer(folder, on_record=stop, **given) as t:
        t.run(batches)
    assert t.outcome[0] == "stopped"
    return t.engine.batches


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("load", [shuffled, with_a_generator, in_workers, Own])
def test_a_resumed_run_reads_the_rest_of_the_shuffled_epoch_it_was_in(tmp_path: Path, load: Callable[..., Any]) -> None:
    with trainer(tmp_path / "whole") as whole:
        whole.run(load(Counted(noise=0.1)))
    assert whole.engine.batches > 21, "several epochs"
    for stop in (23,) if load is in_workers else (5, 23, 37):  # in the first epoch and in later ones
        cut(tmp_path / f"cut{stop}", stop, load(Counted(noise=0.1)))
        torch.rand(100)
        with trainer(tmp_path / f"cut{stop}", resume=True) as second:
            second.run(load(Counted(noise=0.1)))
        assert torch.equal(weights(second.engine.model), weights(whole.engine.model)), f"cut at step {stop}"


def test_a_resumed_run_does_not_load_the_epochs_that_are_over(tmp_path: Path) -> None:
    batches = cut(tmp_path, 50, shuffled(Counted()))
    assert batches > 21
    with trainer(tmp_path, 60, resume=True) as second:
        second.run(shuffled(data := Counted()))
        read = second.engine.batches
    assert len(data.asked) == (read - batches // 7 * 7) * 8


def test_an_iterator_is_read_once_and_no_batch_of_it_is_lost(tmp_path: Path) -> None:
    given: list[int] = []

    def endless() -> Iterator[Pair]:
        for index in itertools.count():
            given.append(index)
            yield batch_of(index)

    source = endless()
    with trainer(tmp_path, None, plain=True) as t:
        t.run(source, steps=10)
        assert given == list(range(10)), "not one more than the steps took"
        t._session.ended = None
        t.run(source, steps=15)
    assert given == list(range(15))


def test_an_iterator_that_ends_too_soon_loses_nothing_of_what_was_learned(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="used up after 12 and cannot be iterated again"), trainer(tmp_path) as t:
        t.run(batch_of(index) for index in range(12))
    with trainer(tmp_path, resume=True) as again:
        assert again.engine.batches == 12 and torch.equal(weights(again.engine.model), weights(t.engine.model))
        again.run(batch_of(index) for index in range(100))
    assert again.outcome[0] == "finished"


def test_an_empty_batch_is_passed_over_with_an_alert_and_not_met_again(tmp_path: Path) -> None:
    def batch(index: int) -> Pair:
        x, y = batch_of(index)
        return (x[:0], y[:0]) if index in (0, 6, 7) else (x, y)

    batches, said = [batch(index) for index in range(40)], list[Record]()
    with trainer(tmp_path / "with", 20, plain=True, on_record=lambda record, _: said.append(record)) as t:
        t.run(batches)
    alerts = [record.message for record in said if isinstance(record, AlertRaised) and record.rule == "empty batch"]
    assert [text.split(" is ")[0] for text in alerts] == [f"batch {i} of the data" for i in (0, 6, 7)]
    assert t.outcome[0] == "finished" and len([r for r in said if isinstance(r, StepRecord)]) == 20
    with trainer(tmp_path / "without", 20, plain=True) as other:
        other.run([b for b in batches if len(b[0])])
    assert torch.equal(weights(t.engine.model), weights(other.engine.model))

    cut(tmp_path / "cut", 6, batches, plain=True)
    with trainer(tmp_path / "cut", 20, resume=True) as again:
        again.run(batches)
    assert again.outcome[0] == "finished"


def test_nothing_but_empty_batches_is_refused(tmp_path: Path) -> None:
    x, y = batch_of(0)
    with pytest.raises(UserError, match=r"the batch is empty \(0 samples\)"), trainer(tmp_path, 20) as t:
        t.run([(x[:0], y[:0])])
    assert t.outcome[0] == "failed"


def test_one_pass_over_a_list_is_one_pass(tmp_path: Path) -> None:
    with trainer(tmp_path, None, plain=True) as t:
        assert t.run(DataLoader(TensorDataset(*batch_of(0)), 8, sampler=RandomSampler(range(32)))) == 4
