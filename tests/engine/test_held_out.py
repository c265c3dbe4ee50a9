"""Claims about held-out losses: of which weights the last one is, which checkpoint is the best, how long to wait."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig
from trainer_core.spec.commands import Rollback, SaveCheckpoint
from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CheckpointSaved, PredictionEnded, RunState, ValidationMeasured


def best_of(rig: Rig) -> list[str]:
    """Names of the checkpoints that are marked as the best."""
    return [entry.name for entry in rig.session.checkpoints.entries() if entry.best]


def falling(first: float = 5.0) -> Iterator[float]:
    """Ever lower losses."""
    while True:
        first -= 0.1
        yield first


@pytest.mark.parametrize("every", [10, 7], ids=["at the last step", "only at the end"])
def test_a_last_validation_that_is_the_best_marks_the_last_checkpoint(tmp_path: Path, every: int) -> None:
    losses = falling()
    rig = Rig(tmp_path, steps=30, validate=lambda: (next(losses), None), validate_every=every).begin().finish()
    assert rig.of(ValidationMeasured)[-1].step == 30
    assert best_of(rig)[-1] == "step-000030", "the one saved at the end is the same model"
    assert rig.of(CheckpointSaved)[-1].best


def test_a_checkpoint_asked_for_right_after_the_best_one_is_still_the_best(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, *[2.0] * 40])
    rig = Rig(tmp_path, validate=lambda: (next(losses), None), validate_every=5).begin().until_step(10)
    assert rig.tell(SaveCheckpoint()).after == "step-000010"
    assert best_of(rig) == ["step-000005", "step-000010"]
    rig.step()
    assert not rig.session.save_checkpoint("other weights").best


def test_a_prediction_that_the_end_undoes_is_validated_again(tmp_path: Path) -> None:
    """The last validation was of the weights it had led to, which are gone."""
    rig = Rig(tmp_path, steps=17, correct_steps=50, validate_every=17)
    rig.session.validate = lambda: (float(rig.weights().norm()), None)
    rig.begin().until_phase(Phase.CORRECT, 1)
    rig.engine.parameters.add(torch.full((rig.engine.parameters.count,), 9.0))  # the prediction is ruined
    rig.finish()
    assert [ended.kept for ended in rig.of(PredictionEnded)] == [False]
    first, last = rig.of(ValidationMeasured)
    assert (first.step, last.step) == (17, 17)
    assert last.loss == pytest.approx(float(rig.weights().norm())) and first.loss > 5 * last.loss


def test_after_a_rollback_the_patience_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """Losses that fall again from where it went back to are gains, though what was given up had lower ones."""
    settings: dict[str, Any] = {"early_stopping_patience": 2, "validate_every": 5, "full_steps": 1000}
    losses = iter([3.0, 1.0, 1.1, 2.9, 2.8, 2.7, 2.75, 2.75])
    rig = Rig(tmp_path, validate=lambda: (next(losses), None), **settings).begin().until_step(5)
    rig.tell(SaveCheckpoint())
    rig.until_step(15)
    rig.tell(Rollback("step-000005"))
    rig.finish()
    assert [v.loss for v in rig.of(ValidationMeasured)] == [3.0, 1.0, 1.1, 2.9, 2.8, 2.7, 2.75, 2.75]
    assert rig.session.ended is not None and rig.session.ended[1].endswith("best checkpoint: step-000010")


ANSWERS = {
    "huge": 10**400,
    "a list": [0.5, 0.9],
    "a word": "x",
    "none": None,
    "two": torch.ones(2),
    "three": (1.0, 2.0, 3.0),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_validation_that_is_no_number_is_one_sentence(tmp_path: Path, answer: object) -> None:
    rig = Rig(tmp_path, validate=lambda: answer, validate_every=5).begin()  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"^validate\(\) returned .*: must be the loss, or \(loss, accuracy or None\)$"):
        rig.until_step(5)


def test_a_validation_that_fails_at_the_end_has_failed_the_run_and_the_journal_says_so(tmp_path: Path) -> None:
    """It ended with nobody's last word, as if the process had been killed; the checkpoint of the end is there."""

    def broken() -> float:
        raise ZeroDivisionError("no held-out data")

    rig = Rig(tmp_path, steps=8, validate=broken).begin()  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        rig.finish()
    last = rig.of(RunState)[-1]
    assert (last.state, last.because) == ("failed", "ZeroDivisionError: no held-out data") == rig.session.ended
    assert rig.session.checkpoints.names()[-1] == "step-000008"
