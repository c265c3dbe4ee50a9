"""Claims about knobs in a hybrid run: an operator's value outlasts a rollback, a checkpoint and a restart."""

from pathlib import Path

import torch

from tests.engine.rig import Rig
from trainer_core import HybridTrainer
from trainer_core.engine.alarms import Alarms
from trainer_core.engine.knobs import Knob
from trainer_core.spec.alerts import SYSTEM_RULES
from trainer_core.spec.commands import (
    AcknowledgeAlert,
    CommandState,
    Rollback,
    SaveCheckpoint,
    SetKnob,
    SilenceAlert,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import KnobDeclared


def box_and_knob() -> tuple[dict[str, float], Knob]:
    box = {"p": 0.1}
    return box, Knob("dropout", lambda: box["p"], lambda value: box.update(p=value), 0.0, 0.5)


def test_a_value_that_was_set_outlasts_a_rollback(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin()
    box, knob = box_and_knob()
    rig.session.knobs.declare(knob, 0)
    rig.until_phase(Phase.FULL, 1)
    rig.tell(SaveCheckpoint())
    assert rig.tell(SetKnob("dropout", 0.4)).state is CommandState.APPLIED
    assert rig.tell(Rollback()).state is CommandState.APPLIED
    assert box["p"] == 0.4


def test_a_checkpoint_brings_the_value_to_a_knob_that_is_declared_later(tmp_path: Path) -> None:
    first, later = Rig(tmp_path / "a").begin(), Rig(tmp_path / "b").begin()
    _box, knob = box_and_knob()
    first.session.knobs.declare(knob, 0)
    first.tell(SetKnob("dropout", 0.3))
    other, same_knob = box_and_knob()
    later.session.load_state_dict(first.session.state_dict())
    assert other["p"] == 0.1
    later.session.knobs.declare(same_knob, 0)
    assert other["p"] == 0.3


def test_a_hybrid_trainer_declares_knobs_as_a_monitor_does(tmp_path: Path) -> None:
    model, heard = torch.nn.Linear(2, 1), list[KnobDeclared]()
    _, knob = box_and_knob()
    with HybridTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.nn.MSELoss(),
        run_dir=tmp_path / "r",
        serve=False,
        on_record=lambda record, attempt: heard.append(record) if isinstance(record, KnobDeclared) else None,
    ) as trainer:
        trainer.knob("dropout", knob.get, knob.set, low=0, high=0.5, meaning="Of the head.")
    assert [(k.name, k.low, k.high, k.value, k.meaning) for k in heard] == [("dropout", 0.0, 0.5, 0.1, "Of the head.")]


def test_alerts_of_the_machine_are_acknowledged_and_silenced_like_the_engines(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin()
    machine = Alarms(rig.engine.record, lambda: 0, rules=SYSTEM_RULES, prefix="system")
    rig.engine.recorder.all_alarms.append(machine)
    machine.judge({"disk_free": 1.0}, 0, rig.engine.config)
    assert rig.tell(AcknowledgeAlert("system-0-1")).after == "acknowledged"
    assert rig.tell(SilenceAlert("disk nearly full", 50)).state is CommandState.APPLIED
    assert rig.tell(AcknowledgeAlert("system-0-2")).state is CommandState.REJECTED
