"""What the progress display says, with a clock of our own."""

import io

from rich.console import Console

from tests.cli.rows import command, measured, started
from trainer_core.cli.progress import PLAIN_EVERY_S, Lines, Standing, clock_text, progress
from trainer_core.spec.commands import CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, PredictionEnded


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_come_from_the_recent_steps() -> None:
    clock = Clock()
    standing = Standing(clock)
    standing.take(started())
    for step in (1, 2, 3):
        clock.now = step / 2
        standing.take(measured(step, Phase.FULL, 1.5, step))
    assert standing.rate == 2.0
    assert standing.figures() == {"phase": "FULL   ", "loss": "1.5000", "rate": "2.0", "eta": "0:04"}


def test_a_rollback_does_not_give_a_negative_rate() -> None:
    clock = Clock()
    standing = Standing(clock)
    for step in (8, 9):
        clock.now += 1
        standing.take(measured(step, Phase.FULL, 1.0, step))
    standing.take(AttemptStarted(5, 1, 0, 9, None, "asked"))
    clock.now += 1
    standing.take(measured(6, Phase.FULL, 1.0, 10))
    assert standing.rate is None and standing.step == 6


def test_without_a_terminal_steps_are_lines_now_and_then_and_events_at_once() -> None:
    clock, text = Clock(), io.StringIO()
    lines = Lines(Console(file=text, width=200), clock)
    lines.take(started(), 0)
    for step in range(1, 101):
        clock.now += PLAIN_EVERY_S / 50
        lines.take(measured(step, Phase.FULL, 1.0, step), 0)
    lines.take(PredictionEnded(100, 1, False, 0, "the probe says worse", 1.0, 1.1, 0.9, None), 0)
    lines.take(command(CommandState.APPLIED, 100, before="PREDICT", after="FULL"), 0)
    said = text.getvalue().splitlines()
    assert said[0].startswith("step 1/12 FULL loss 1.0000 - it/s")
    assert len(said) in (4, 5)
    assert said[-2] == "step 100: prediction undone (the probe says worse)"
    assert said[-1] == "step 100: force-full applied by operator (PREDICT -> FULL)"


def test_times_are_written_as_clocks() -> None:
    assert [clock_text(s) for s in (0, 61, 3600 + 62)] == ["0:00", "1:01", "1:01:02"]


def test_losses_of_any_size_are_shown_in_a_few_signs() -> None:
    standing = Standing(Clock())
    shown = []
    for loss in (0.25, 0.0123, 2.5e-5, 1e30):
        standing.take(measured(1, Phase.FULL, loss, 1))
        shown.append(standing.figures()["loss"])
    assert shown == ["0.2500", "0.0123", "2.5e-05", "1e+30"]


def test_a_bar_before_the_first_record_counts_to_nothing() -> None:
    """It said 0/None while torch was being loaded."""
    text = io.StringIO()
    with progress(Console(file=text, width=100, force_terminal=True)):
        pass
    assert "WARMUP" in text.getvalue() and "None" not in text.getvalue()
