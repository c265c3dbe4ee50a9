"""Claims about learned predictors in a run: they keep their time budget, change nothing else, and are saved whole."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, same
from trainer_core.engine.pace import Pace
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.phases import Phase
from trainer_core.spec.presets import PRESETS
from trainer_core.spec.records import PredictionEnded, PredictionProbed, StepRecord

MLP: dict[str, Any] = {"type": "MLP", "ensemble_size": 3, "predictor_train_every": 2}
RSSM: dict[str, Any] = {
    "type": "RSSM",
    "ensemble_size": 2,
    "predictor_train_every": 5,
    "deterministic_dim": 16,
    "stochastic_dim": 4,
    "num_categoricals": 4,
}


class Student:
    """Its training takes as long as ``costs`` says, on a clock of its own."""

    def __init__(self, *costs: float, flops: float = 1e6) -> None:
        self.costs, self.unit_flops = list(costs), flops
        self.now = self.spent = 0.0
        self.units = 0

    def clock(self) -> float:
        return self.now

    def train(self) -> None:
        cost = self.costs[min(self.units, len(self.costs) - 1)]
        self.now += cost
        self.spent += cost
        self.units += 1


@pytest.mark.parametrize("cost", [0.001, 0.04, 3.0])
def test_training_takes_its_share_of_the_measured_time_and_never_more(cost: float) -> None:
    student = Student(cost, flops=cost * 5e9)
    pace = Pace(student.clock, PredictorConfig(predictor_time_share=0.05))
    for step in range(1, 4001):
        student.now += 0.1
        pace.after_step(student, step, 0.1)
        assert student.spent <= 0.05 * 0.1 * step + 1e-9
    assert student.spent >= min(3999 * cost, 0.9 * 0.05 * 0.1 * 4000 - cost)


def test_a_unit_that_took_longer_than_expected_is_paid_back_before_the_next() -> None:
    student = Student(2.0, 0.01, flops=1.0)
    pace = Pace(student.clock, PredictorConfig(predictor_time_share=0.05))
    trained = [step for step in range(1, 2001) if pace.after_step(student, step, 0.1) is not None]
    assert trained[0] == 1
    assert trained[1] >= 2.0 / (0.05 * 0.1), "2 seconds are earned back, and what the next is expected to take"


def test_nothing_is_saved_up_while_there_is_nothing_to_learn() -> None:
    student = Student(0.1, flops=0.0)
    pace = Pace(student.clock, PredictorConfig())
    for step in range(1000):
        assert pace.after_step(student, step, 1.0) is None
    student.unit_flops = 5e8
    trained = [pace.after_step(student, 1000 + step, 0.1) is not None for step in range(100)]
    assert sum(trained) <= 100 * 0.1 * 0.05 / 0.1


def test_a_share_of_nothing_trains_nothing_and_every_n_steps_is_every_n_steps() -> None:
    never, every = Student(0.1), Student(0.1)
    none = Pace(never.clock, PredictorConfig(predictor_time_share=0.0))
    third = Pace(every.clock, PredictorConfig(predictor_train_every=3))
    for step in range(1, 31):
        assert none.after_step(never, step, 1.0) is None
        assert third.after_step(every, step, 1.0) == (pytest.approx(0.1) if step % 3 == 0 else None)


@pytest.mark.parametrize("settings", [MLP, RSSM], ids=lambda s: str(s["type"]))
def test_a_run_with_a_learned_predictor_resumes_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    def rig() -> Rig:
        return Rig(tmp_path, steps=110, warmup_steps=40, predictor_config=settings)

    whole = rig().begin().until_phase(Phase.PREDICT, 2).until_step(75)
    whole.session.save_checkpoint("now")
    again = rig()
    again.session.resume(0, whole.engine.step_count, "test")
    assert same(whole.engine.state_dict(), again.engine.state_dict())
    whole.finish()
    again.finish()
    assert torch.equal(whole.weights(), again.weights())
    assert same(whole.engine.predictor.state_dict(), again.engine.predictor.state_dict())
    assert any(p.uncertainty is not None for p in whole.of(PredictionProbed)) and whole.of(PredictionEnded)


@pytest.mark.parametrize("settings", [MLP, RSSM], ids=lambda s: str(s["type"]))
def test_dropout_and_weights_are_those_of_a_run_without_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Prediction locked out, so that only the predictor's watching and training could make a difference."""
    runs = []
    for name, predictor in (("a", settings), ("b", {"type": "Linear"})):
        rig = Rig(tmp_path / name, steps=70, dropout=0.3, predictor_config=predictor)
        rig.engine.locked = True
        runs.append(rig.begin().finish())
    assert torch.equal(runs[0].weights(), runs[1].weights())


def test_the_seconds_of_its_training_are_in_the_records(tmp_path: Path) -> None:
    ticks = iter(range(10**9))
    rig = Rig(tmp_path, steps=60, warmup_steps=60, predictor_config=MLP, clock=lambda: float(next(ticks)))
    records = [r for r in rig.begin().finish().of(StepRecord) if r.predictor_train_seconds is not None]
    assert {r.step % 2 for r in records} == {0}
    for record in records:
        assert record.predictor_train_seconds == 1.0
        assert record.predict_seconds is not None and record.predict_seconds > record.predictor_train_seconds
        assert record.step_seconds is not None and record.step_seconds >= record.predict_seconds


def test_a_nan_batch_is_rolled_back_with_the_predictor_and_training_goes_on(tmp_path: Path) -> None:
    rig = Rig(
        tmp_path, steps=120, warmup_steps=40, scales={30: float("nan")}, predictor_config=MLP, checkpoint_every=20
    )
    rig.begin().finish()
    assert rig.engine.attempt == 1 and rig.session.ended == ("finished", "all 120 steps taken")
    assert torch.isfinite(rig.weights()).all()
    proposal = rig.engine.predictor.propose(rig.engine.state)
    assert proposal is not None and torch.isfinite(proposal.step_P).all()


@pytest.mark.parametrize("name", ["medium", "large", "generalist"])
def test_the_documents_larger_presets_train_with_their_world_model(tmp_path: Path, name: str) -> None:
    settings = PRESETS[name]["predictor_config"] | {"predictor_train_every": 60}
    rig = Rig(tmp_path, steps=190, warmup_steps=60, predictor_config=settings).begin().finish()
    assert [r.step for r in rig.of(StepRecord) if r.predictor_train_seconds] and rig.of(PredictionEnded)
    assert torch.isfinite(rig.weights()).all()
