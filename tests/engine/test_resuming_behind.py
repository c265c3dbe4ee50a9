"""Claims about a run that died some steps behind its checkpoint: what was done after it is done again, to the bit."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import EAGER, batch_of, network, per_sample
from trainer_core import HybridTrainer
from trainer_core.engine.alarms import Alarms
from trainer_core.engine.randomness import random_state, set_random_state
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, AlertResolved, ProgressCompared, Record, StepRecord

SETTINGS = EAGER | {
    "policy": "adaptive", "min_predict_steps": 16, "max_predict_steps": 40, "confidence_threshold": 0.5,
}  # fmt: skip
BATCHES = 160


def trainer(run_dir: Path, said: list[Record], **more: Any) -> HybridTrainer:
    torch.manual_seed(7)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    return HybridTrainer(
        model, optimizer, per_sample, SETTINGS, run_dir, serve=False, on_record=lambda r, _: said.append(r), **more
    )


def weights(t: HybridTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in t.engine.model.parameters()])


@pytest.mark.parametrize("dies_after", [3, 12])
def test_steps_done_twice_are_no_cost_of_the_stretch_that_the_guard_compares(tmp_path: Path, dies_after: int) -> None:
    """They were counted as passes of the present stretch, and the resumed run decided otherwise than the whole one."""
    said: list[Record] = []
    with trainer(tmp_path / "run", said) as whole:
        for number in range(BATCHES):
            whole.step(batch_of(whole.engine.batches))
            if number == 30:
                whole.save_checkpoint()
            if number == 30 + dies_after:
                whole._voice.flush()
                shutil.copytree(tmp_path / "run", tmp_path / "dead")
        expected, kept = weights(whole), whole.engine.predictions_kept
    assert any(isinstance(r, ProgressCompared) for r in said), "the guard has compared"
    with trainer(tmp_path / "dead", [], resume=True) as again:
        assert 30 < again.engine.batches <= 31
        while again.engine.batches < BATCHES:
            again.step(batch_of(again.engine.batches))
        assert again.engine.predictions_kept == kept
        assert torch.equal(weights(again), expected)


def test_a_normal_number_that_python_has_in_store_comes_back() -> None:
    """``random.gauss`` draws two at a time."""
    random.seed(1)
    random.gauss(0, 1)
    state = random_state()
    drawn = [random.gauss(0, 1) for _ in range(3)]
    set_random_state(state)
    assert [random.gauss(0, 1) for _ in range(3)] == drawn


def judged(alarms: Alarms, step: int, norm: float) -> None:
    """One measured step with a gradient norm."""
    record = StepRecord(step, step, Phase.FULL, 1, 1, None, loss=1.0, grad_norm=norm, backward_passes=step)
    alarms.check(record, True, resolve({}).config)


def test_an_alert_that_was_resolved_behind_the_checkpoint_is_raised_again_while_it_stands() -> None:
    """The journal says that it is over; the checkpoint, from before that, has it open: nobody was told of it again."""
    said: list[Record] = []
    alarms = Alarms(said.append, lambda: 1)
    for step in range(1, 6):
        judged(alarms, step, 50.0)
    (raised,) = [r for r in said if isinstance(r, AlertRaised)]
    state = alarms.state_dict()

    for still in (True, False):
        said.clear()
        resumed = Alarms(said.append, lambda: 2)
        resumed.load_state_dict(state)
        resumed.known(set())
        assert resumed.open_alerts() == [], "no remedy of something that is said to be over"
        for step in range(6, 30):
            judged(resumed, step, 50.0 if still else 1.0)
        told = [r for r in said if isinstance(r, AlertRaised | AlertResolved)]
        assert [(type(r), r.alert_id) for r in told] == ([(AlertRaised, raised.alert_id)] if still else [])
        resumed.load_state_dict(state)
        resumed.known({raised.alert_id})
        assert len(resumed.open_alerts()) == 1
