"""Claims about batches without labels, whose mean loss is NaN: they say nothing and do no harm."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Rig, batch_of
from trainer_core.learning.paired import moments, paired_test, pooled_test
from trainer_core.spec.errors import TrainingFailed
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Annotated as Note
from trainer_core.spec.records import AttemptStarted, PredictedStretch, PredictionEnded, PredictionProbed, StepRecord

NONE = -100
NAN = float("nan")


def mean(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy over the labels there are."""
    return F.cross_entropy(model(batch[0]), batch[1], ignore_index=NONE)


def unlabelled(index: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Batch ``index`` without labels from sample ``first`` on."""
    x, y = batch_of(index)
    return x, torch.where(torch.arange(len(y)) < first, y, torch.full_like(y, NONE))


def train(rig: Rig, every: int, first: int = 0) -> Rig:
    """To the end; each ``every``-th batch has labels for its first samples only."""
    while rig.session.ended is None:
        index = rig.engine.batches
        rig.engine.step(unlabelled(index, first) if index % every == every - 1 else batch_of(index))
        rig.session.after_step()
    rig.session.close()
    return rig


@pytest.mark.parametrize("policy", ["document", "adaptive"])
def test_a_batch_without_labels_is_neither_measured_nor_rolled_back(tmp_path: Path, policy: str) -> None:
    rig = train(Rig(tmp_path, loss=mean, policy=policy, steps=120).begin(), 5)
    assert rig.session.ended == ("finished", "all 120 steps taken")
    assert not rig.of(AttemptStarted) and rig.engine.schedule.scale == 1.0
    losses = {r.batch - 1: r.loss for r in rig.of(StepRecord)}
    assert all((loss is None) == (batch % 5 == 4) for batch, loss in losses.items())
    assert sum("no label" in note.text for note in rig.of(Note)) == 1
    assert all("z = -6" not in end.because for end in rig.of(PredictionEnded))


def test_the_weights_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=mean, warmup_steps=1000, steps=20).begin()
    model = copy.deepcopy(rig.model)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for index in range(20):
        optimizer.zero_grad()
        mean(model, unlabelled(index) if index % 5 == 4 else batch_of(index)).backward()
        optimizer.step()
    train(rig, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), rig.model.parameters(), strict=True))


def test_a_prediction_outlasts_a_batch_without_labels_and_not_broken_weights(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=mean, steps=200).begin().until_phase(Phase.PREDICT, 2)
    assert rig.engine.step(unlabelled(50)).loss is None
    rig.session.after_step()
    assert rig.engine.phase is Phase.PREDICT and rig.engine.steps_in_phase == 3
    rig.until_phase(Phase.CORRECT)
    rig.until_phase(Phase.PREDICT, 2)
    with torch.no_grad():
        next(rig.model.parameters()).fill_(NAN)
    rig.step()
    rig.step()
    assert "not_finite" in rig.of(PredictionEnded)[-1].because and not rig.of(PredictionEnded)[-1].kept


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_piece_without_labels_keeps_nobody_from_predicting(tmp_path: Path, accumulate: int) -> None:
    """Probes of a mean compare pieces, and micro-batches are pieces: of every batch the last have no labels."""
    rig = train(Rig(tmp_path, loss=mean, policy="adaptive", steps=150, accumulate=accumulate).begin(), 1, 10)
    assert not rig.of(AttemptStarted)
    assert all(r.loss is not None and r.loss == r.loss for r in rig.of(StepRecord))
    assert all(r.z == r.z and r.loss_before == r.loss_before for r in rig.of(PredictionProbed))
    assert rig.of(PredictedStretch) and rig.engine.predictions_kept > 0


def test_a_look_at_a_batch_without_labels_is_none(tmp_path: Path) -> None:
    rig = train(Rig(tmp_path, loss=mean, policy="adaptive", steps=200).begin(), 2)
    assert rig.of(PredictedStretch)
    assert all(r.z == r.z for r in rig.of(PredictionProbed))


def test_nothing_but_batches_without_labels_ends_in_a_sentence(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=mean, steps=1000).begin()
    for index in range(100):
        rig.engine.step(unlabelled(index))
        rig.session.after_step()
    with pytest.raises(TrainingFailed, match=r"100 batches in a row was NaN .* look at the labels"):
        rig.engine.step(unlabelled(100))


def test_nan_with_a_gradient_is_still_rolled_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=60, scales={20: NAN}).begin()
    rig.until(lambda: bool(rig.of(AttemptStarted)))
    assert rig.engine.schedule.scale == pytest.approx(0.1)


def test_what_is_nan_on_both_sides_compares_nothing() -> None:
    before, after = torch.tensor([1.0, NAN, 2.0, 3.0]), torch.tensor([0.5, NAN, 1.0, 2.5])
    known = torch.tensor([0, 2, 3])
    expected = paired_test(before[known], after[known])
    assert paired_test(before, after) == expected and not expected.void
    parts = [moments(before[:2], after[:2]).tolist(), moments(before[2:], after[2:]).tolist()]
    assert pooled_test(parts).z == pytest.approx(expected.z)
    nothing = torch.full((3,), NAN)
    assert paired_test(nothing, nothing).void and pooled_test([moments(nothing, nothing).tolist()] * 2).void
    assert pooled_test([moments(nothing, nothing).tolist(), moments(before, after).tolist()]).z == pytest.approx(
        expected.z
    )
    for worse in itertools.permutations([NAN, 1.0, 1.0]):
        assert paired_test(torch.ones(3), torch.tensor(worse)).z == -6.0
