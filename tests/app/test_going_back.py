"""After a rollback or a resume: what is shown is of the line that lives on, from the first moment."""

import numpy as np
import pytest

from app.figures.health_losses import validation, validations
from app.store import Snapshot, Store
from app.views.commands import rollback_targets
from app.views.compare import compared, row
from app.views.happenings import happenings
from app.views.health_machine import curve
from app.views.series import Look, Window, line
from app.views.strip import strip
from app.views.symptoms import validation_stuck
from app.views.whatif import GONE_BACK, what_if
from tests.app.rows import Script
from tests.app.test_views import Status, seen
from trainer_core.spec.config import Config
from trainer_core.spec.records import (
    CheckpointSaved,
    CheckpointSkipped,
    Lost,
    PredictionEnded,
    SystemMeasured,
    ValidationMeasured,
)

DAYS = 2 * 86_400.0


def saved(script: Script) -> None:
    script.say(CheckpointSaved(script.step, f"step-{script.step}", 10, True, "every", 0.1))


def gone_back(reached: int = 1000, to: int = 100) -> Script:
    """A run that went back and is paused there: it has not stepped since."""
    script = Script().start().steps(to)
    saved(script)
    script.steps(reached - to)
    script.roll_back(to)
    return script


def test_before_the_first_step_of_an_attempt_the_strip_says_where_it_went_back_to() -> None:
    shown = strip(seen(gone_back()), Status("paused"), "/runs/a", 0.0)
    assert (shown.step, shown.attempt, shown.progress) == ("100", "2", 0.1)
    script = gone_back()
    script.steps(3)
    assert strip(seen(script), Status(), "/runs/a", 0.0).step == "103"


def test_there_is_nothing_to_replay_before_the_first_step_of_an_attempt() -> None:
    assert what_if(seen(gone_back()), Config(), "confidence_threshold", 0.5) == GONE_BACK


@pytest.mark.parametrize(("last", "ends"), [(200, 203.0), (1000, 603.0), (None, 1000.0)])
def test_who_follows_the_newest_steps_sees_them_also_when_the_run_went_far_back(last: int | None, ends: float) -> None:
    script = gone_back()
    script.steps(3)
    low, high = Window(last).resolve(seen(script))
    assert low <= 103 <= high
    assert high == ends


def test_everything_is_everything_that_any_attempt_has_reached() -> None:
    script = gone_back()
    script.steps(50)
    script.roll_back(100)
    script.steps(3)
    assert Window().resolve(seen(script)) == (0.0, 1000.0)


def test_a_rollback_preview_counts_each_step_once_and_no_night_in_between() -> None:
    script = gone_back(200)
    script.steps(50)  # at step 150
    script.say(PredictionEnded(140, 1, True, 10, "kept", 1.0, 0.9, 0.9, 0.05))
    script.roll_back(100)
    script.time += DAYS  # it was resumed two days later
    script.steps(40)
    script.say(PredictionEnded(130, 2, True, 10, "kept", 1.0, 0.9, 0.9, 0.05))
    (target,) = rollback_targets(seen(script))
    assert target.cost == "40 steps (4 s of training, 1 kept prediction among them)"


def test_a_second_rollback_counts_from_where_the_first_one_went() -> None:
    script = Script().start()
    for _ in range(3):
        script.steps(100)
        saved(script)
    script.steps(100)
    script.roll_back(300)
    assert [(target.name, target.steps_lost) for target in rollback_targets(seen(script))] == [
        ("step-300", 0), ("step-200", 100), ("step-100", 200),
    ]  # fmt: skip


def validated(*losses: tuple[int, float]) -> Script:
    """Validations at these steps; a smaller step is one of a new attempt that began 5 steps before it."""
    script = Script().start()
    for step, loss in losses:
        if step <= script.step:
            script.roll_back(step - 5)
        script.steps(step - script.step)
        script.say(ValidationMeasured(step, loss, None, 0.1))
    return script


def test_validations_that_a_rollback_took_back_are_gone_at_once_and_stay_so() -> None:
    script = validated((100, 1.0), (200, 0.2))
    script.roll_back(100)
    assert validations(seen(script)).columns["x"].tolist() == [100]
    shown = validation(seen(script), Look(Window()))
    assert "best 1 at step 100" in shown.caption
    script.steps(150)  # the new attempt predicted over the step of the earlier validation
    script.say(ValidationMeasured(250, 0.9, None, 0.1))
    assert validations(seen(script)).columns["x"].tolist() == [100, 250]
    (run,) = compared([("a", "working", seen(script))])
    assert row(run)[5] == "0.9"
    assert validation_stuck(seen(script), Config()) == (False, "0.9 now, best before 1")


def smoothed(snapshot: Snapshot) -> dict[float, float]:
    """Step -> smoothed loss of the line that lives on."""
    found = line(snapshot, snapshot.steps, "loss", Window(), smooth=0.9).kept.columns
    known = np.isfinite(found["x"])
    return dict(zip(found["x"][known].tolist(), found["smooth"][known].tolist(), strict=True))


def test_a_smoothed_line_goes_on_from_where_the_run_went_back_to() -> None:
    script = Script().start().steps(50, loss=1.0)
    script.steps(50, loss=1e6)
    script.roll_back(50)
    script.steps(20, loss=1.0)
    found = smoothed(seen(script))
    assert found == pytest.approx(dict.fromkeys(found, 1.0)) and len(found) == 70


def test_a_smoothed_line_is_the_same_however_its_attempts_came_in() -> None:
    def tell(script: Script, part: int) -> None:
        if part in (1, 3):
            script.roll_back((40, 30)[part // 2])
        script.steps(25, loss=float(part))

    script, store = Script().start().steps(40), Store()
    for part in range(5):
        tell(script, part)
        store.append(script.rows)
        smoothed(store.snapshot())
    assert smoothed(store.snapshot()) == pytest.approx(smoothed(seen(script)))
    assert len(smoothed(store.snapshot())) == store.snapshot().step


def test_readings_of_the_machine_are_not_joined_over_the_days_between_two_processes() -> None:
    script = Script().start()
    for reading in range(10):
        script.time += DAYS if reading == 5 else 5.0
        script.say(SystemMeasured(script.step, cpu=1.0))
    found = curve(seen(script), "cpu").series.columns
    assert np.flatnonzero(np.isnan(found["y"])).tolist() == [5] and np.isnan(found["x"][5])
    assert np.isfinite(found["y"]).sum() == 10


def test_what_was_lost_or_passed_over_is_said() -> None:
    script = Script().start().steps(5)
    script.say(Lost(5, 2, 4, 3))
    script.say(CheckpointSkipped(5, "step-4", "weights.safetensors is damaged"))
    said = [happening.text for happening in happenings(seen(script))]
    assert said == [
        "checkpoint step-4 was passed over: weights.safetensors is damaged",
        "3 step records lost, 2 to 4: the disk could not keep up",
    ]
