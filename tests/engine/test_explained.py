"""What a step records is enough to ask every guard again: the dashboard's guards say what the engine's said."""

from pathlib import Path
from typing import Any

import pytest

from app.views.phases_machine import signals_of
from tests.engine.rig import Rig
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Explained, StepRecord
from trainer_core.spec.transitions import explain

DOUBTING = {
    "confidence_threshold": 0.6,
    "prediction_error_threshold": 0.2,
    "divergence_threshold": 3.0,
    "divergence_window": 3,
    "max_sign_changes": 3,
}


@pytest.mark.parametrize(
    "settings", [{}, DOUBTING, {"policy": "adaptive", "min_predict_steps": 1, "min_full_steps": 1}]
)
def test_guards_made_from_a_step_say_word_for_word_what_the_engine_said(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    rig = Rig(tmp_path, steps=60, **settings).begin().finish()
    compared, last = set(), None
    for record, _ in rig.records:
        if isinstance(record, StepRecord):
            last = record
        elif isinstance(record, Explained):
            assert last is not None and last.step == record.step
            signals = signals_of(last.phase, last.step, lambda name: getattr(last, name), rig.engine.config, False)  # noqa: B023
            assert explain(last.phase, signals, rig.engine.config) == record.lines
            compared.add(last.phase)
    jumps = settings.get("policy") == "adaptive"  # no step is measured inside a jump
    assert compared == set(Phase) - ({Phase.PREDICT} if jumps else set())
