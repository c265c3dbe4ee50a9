"""What a page says when the trainer has gone back by itself: at that moment, after it, and when it comes again."""

import math

import pytest

from app.feed import Connection
from app.figures import now
from app.screens.live import lists
from app.screens.page import Moment
from app.views.happenings import happenings
from app.views.incident import NEWS_STEPS, incident
from app.views.strip import Strip, strip
from tests.app.rows import Script
from tests.app.test_views import Status, seen
from trainer_core.spec.commands import Command, CommandState, ScaleLearningRate, SetGradientClip, SetThreshold
from trainer_core.spec.records import AlertRaised, AlertResolved, CommandChanged
from trainer_core.spec.severity import Severity

NAN = "not_finite (NaN or Inf)"
REMEDY = (ScaleLearningRate(0.1), SetGradientClip(1.0))


def alert(script: Script, alert_id: str = "a", severity: Severity = Severity.CRITICAL) -> None:
    script.say(AlertRaised(script.step, alert_id, "not finite", severity, "loss", None, None,
                           "NaN or Inf in loss; a batch", "nan_loss", REMEDY, "a batch"))  # fmt: skip


def answer(script: Script, step: int, because: str = NAN, clip: tuple[str, str] = ("0", "1")) -> None:
    """The trainer goes back and sets what it sets then."""
    script.roll_back(step, because)
    for number, (command, before, after) in enumerate(
        ((ScaleLearningRate(0.1), "0.001", "0.0001"), (SetGradientClip(1.0), *clip))
    ):
        for state in (CommandState.APPLYING, CommandState.APPLIED):
            script.say(CommandChanged(step, script.phase, f"{script.attempt}-{number}", command, state, "trainer",
                                      len(script.rows), before=before, after=after))  # fmt: skip


def at_the_nan() -> Script:
    script = Script().start().steps(50)
    script.steps(1, loss=math.nan)
    alert(script)
    return script


def said(script: Script, state: str = "working") -> Strip:
    return strip(seen(script), Status(state), "runs/a", script.time)


def test_until_it_is_answered_the_alert_is_what_there_is_to_press() -> None:
    shown = said(at_the_nan())
    assert (shown.worst, shown.worst_tone) == ("✖ NaN or Inf in loss · since step 51", "critical")
    assert shown.remedy == "nan_loss"


def test_then_it_says_what_happened_and_what_was_done_and_offers_no_second_division_of_the_rate() -> None:
    script = at_the_nan()
    answer(script, 40)
    shown = said(script)
    assert shown.worst == (
        "↶ NaN or Inf at step 51: the trainer went back to step 40 (11 steps thrown away), "
        "learning rate 0.001 → 0.0001, gradient clip off → 1. "
        "Nothing to press. If it comes again: look at that batch and the learning rate."
    )
    assert (shown.remedy, shown.worst_tone) == ("", "critical"), "its alert is still open"
    (listed,) = lists(Moment(seen(script), Status(), Connection(), "runs/a", script.time, (), ()))["alerts"]
    assert listed["press"] == [] and "open, the run went back to 40" in listed["detail"]
    script.steps(10)
    script.say(AlertResolved(script.step, "a", "not finite", "finite for 10 steps"))
    shown = said(script)
    assert shown.worst.startswith("↶ NaN or Inf at step 51") and shown.worst_tone == "caution"
    assert "went back to step 40" in now.html(shown, "light")
    script.steps(1 + NEWS_STEPS)
    assert said(script).worst, "still news: NEWS_STEPS beyond the step it had reached"
    script.steps(1)
    assert (said(script).worst, said(script).worst_tone) == ("", "muted")


def test_what_comes_after_the_answer_is_an_alert_again_with_its_remedy() -> None:
    script = at_the_nan()
    answer(script, 40)
    script.steps(3, grad_norm=500.0)
    alert(script, "b")
    assert said(script).worst.startswith("✖") and said(script).remedy == "nan_loss"


def test_other_alerts_keep_their_remedies_meanwhile() -> None:
    script = Script().start().steps(30)
    alert(script, "older", Severity.WARNING)
    script.steps(1, loss=math.nan)
    answer(script, 20)
    (listed,) = lists(Moment(seen(script), Status(), Connection(), "runs/a", script.time, (), ()))["alerts"]
    assert [press["which"] for press in listed["press"]] == ["nan_loss"]


def test_when_it_comes_again_from_the_same_step_it_asks_for_a_person() -> None:
    script = at_the_nan()
    answer(script, 40)
    script.steps(2)
    answer(script, 40, clip=("1", "1"))
    found = incident(seen(script))
    assert found is not None
    assert "at step 42: the trainer went back to step 40 (2 steps thrown away), learning rate" in found.said
    assert "clip" not in found.said, "it is what it was"
    assert found.next == (
        "It has gone back there 2 times in a row, which ends after 5: pause the run and look for the cause."
    )
    script.steps(30)
    answer(script, 60)
    again = incident(seen(script))
    assert again is not None and again.next.startswith("Nothing to press"), "training had got past it"


def test_only_what_the_trainer_set_by_itself_and_only_its_own_attempts_are_told_of() -> None:
    script = at_the_nan()
    answer(script, 40)
    for number, actor in enumerate(("operator", "trainer")):
        command = SetGradientClip(0.5) if actor == "operator" else ScaleLearningRate(0.5)
        script.say(CommandChanged(40, script.phase, f"late-{number}", command, CommandState.APPLIED, actor,
                                  len(script.rows), before="1", after="0.5"))  # fmt: skip
    found = incident(seen(script))
    assert found is not None and found.said.endswith("learning rate 0.001 → 0.0001, gradient clip off → 1.")
    other = at_the_nan()
    answer(other, 40, clip=("1", "1"))
    other.say(CommandChanged(40, other.phase, "late", SetGradientClip(0.5), CommandState.APPLIED, "operator", 99,
                             before="1", after="0.5"))  # fmt: skip
    found = incident(seen(other))
    assert found is not None and "clip" not in found.said
    script.roll_back(40, "rolled back by operator")
    answer(script, 40)
    again = incident(seen(script))
    assert again is not None and again.next.startswith("Nothing to press"), "between them a person went back"


@pytest.mark.parametrize(
    ("state", "times", "asked"),
    [
        ("failed", 2, "It had gone back there 2 times in a row. Look at that batch"),
        ("crashed", 1, "Look at that batch and the learning rate before you go on."),
        ("finished", 1, ""),
    ],
)
def test_a_run_that_has_ended_is_not_to_be_paused(state: str, times: int, asked: str) -> None:
    script = at_the_nan()
    for _ in range(times):
        answer(script, 40)
        script.steps(2)
    found = incident(seen(script), state)
    assert (
        found is not None
        and found.next.startswith(asked)
        and "ause" not in found.text
        and bool(found.next) == bool(asked)
    )
    assert said(script, state).worst == f"↶ {found.text}"
    assert incident(seen(script), "replay") == incident(seen(script))


@pytest.mark.parametrize("because", ["rolled back by operator", "resumed"])
def test_an_attempt_that_was_asked_for_is_no_incident(because: str) -> None:
    script = Script().start().steps(50)
    script.roll_back(40, because)
    script.steps(2)
    assert incident(seen(script)) is None


def test_an_extreme_gradient_is_said_with_its_numbers() -> None:
    script = Script().start().steps(50)
    answer(script, 40, "gradient_extreme (3.1e+04 > 100)")
    found = incident(seen(script))
    assert found is not None and found.said.startswith("Extreme gradient (3.1e+04, limit 100) at step 50: the trainer")


def test_a_command_is_one_line_of_what_happened_lately_however_many_states_it_went_through() -> None:
    script = at_the_nan()
    answer(script, 40)
    many: Command = SetThreshold("confidence_threshold", 0.9)
    script.command(many, CommandState.ACCEPTED, "late")
    lines = [line.text for line in happenings(seen(script))]
    assert lines == [
        "Set confidence_threshold to 0.9: accepted; waits for the next step boundary",
        "Set gradient clip to 1: applied at step 40 in WARMUP: 0 → 1",
        "Scale learning rate by 0.1: applied at step 40 in WARMUP: 0.001 → 0.0001",
        f"attempt 2 goes on from step 40: {NAN}",
    ]
