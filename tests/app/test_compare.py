"""Runs beside one another: colours, costs, what differs, and the account against a baseline."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.figures import compare as figures
from app.store import Snapshot, Store
from app.views import baseline, words
from app.views.compare import COLOURS, compared, cost, differences, row, shares, training, validation
from app.views.runs import lines
from app.views.timeline import at_work
from tests.app.rows import Script, cycled
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import ValidationMeasured
from trainer_core.telemetry.comparison import Comparison, Cost, EqualLoss, Gap
from trainer_core.telemetry.rundir import RunStatus, RunSummary


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


def test_a_run_keeps_its_colour_whoever_is_beside_it() -> None:
    snapshot = seen(cycled(1))
    alone = compared([("b", "", snapshot)])[0]
    both = compared([("a", "", snapshot), ("b", "", snapshot)])
    assert alone.colour == both[1].colour != both[0].colour
    many = compared([(f"run-{i}", "", snapshot) for i in range(COLOURS)])
    assert sorted(run.colour for run in many) == list(range(COLOURS))
    assert [run.name for run in many] == [f"run-{i}" for i in range(COLOURS)]


def test_runs_are_searched_by_every_word_in_whatever_they_say() -> None:
    runs = [
        RunSummary("big run", Path("a"), RunStatus("crashed", "its lock is free", 50, 200), "code_lm", 1.7e9),
        RunSummary("new", Path("b"), RunStatus("working", "steps are coming", 7), "digits", 1.7e9 + 86400),
        RunSummary("broken", Path("c"), RunStatus("unreadable", "no database")),
    ]
    assert [line.name for line in lines(runs)] == ["big run", "new", "broken"]
    assert [line.name for line in lines(runs, "Code_LM crashed")] == ["big run"]
    assert [line.name for line in lines(runs, "2023-11-15")] == ["new"]
    assert lines(runs, "digits crashed") == []
    first, second, third = lines(runs)
    assert (first.progress, first.address, first.started) == (25.0, "/?run=big%20run", "2023-11-14 22:13")
    assert (second.progress, third.started) == (None, "")


def test_pauses_are_no_time_at_work() -> None:
    assert at_work(np.array([100.0, 101.0, 5000.0, 5002.0])).tolist() == [0.0, 1.0, 1.0, 3.0]
    assert len(at_work(np.empty(0))) == 0


def test_steps_that_take_long_are_work_and_no_pauses() -> None:
    slow = 100.0 + 40.0 * np.arange(50)
    assert at_work(slow)[-1] == 49 * 40.0
    night = np.concatenate([slow, slow + 30_000.0])
    assert at_work(night)[-1] == 98 * 40.0


def test_a_rolled_back_stretch_was_paid_for_but_is_not_drawn() -> None:
    script = Script().start().steps(40)
    script.say(ValidationMeasured(40, 9.0, None, 0.1))
    script.roll_back(20)
    script.steps(40)
    script.say(ValidationMeasured(60, 1.0, None, 0.1))
    (run,) = compared([("r", "working", seen(script))])
    paid = cost(run.snapshot)
    drawn = training(run, "backward", paid, 0.0).columns["x"]
    assert paid.step.tolist() == list(range(1, 61))
    assert np.nanmax(drawn) == 80, "all attempts' backward passes"
    assert validation(run, "step", paid).columns["x"].tolist() == [60.0]
    assert validation(run, "time", paid).columns["x"].tolist() == pytest.approx([7.9], abs=0.01)


def test_what_differs_is_shown_and_nothing_else() -> None:
    left, right = Script().start(), Script().start()
    first = right.rows[0].record
    changed = {**first.config, "training": {**first.config["training"], "seed": 7}}  # type: ignore[union-attr]
    right.rows[0] = type(right.rows[0])(1, right.rows[0].time, 1, msgspec.structs.replace(first, config=changed))
    runs = compared([("a", "", seen(left)), ("b", "", seen(right))])
    assert differences(runs) == [("training.seed", [str(first.config["training"]["seed"]), "7"])]  # type: ignore[union-attr]
    assert differences(runs[:1]) == []


def test_the_table_and_the_figures_of_an_empty_and_a_cycled_run() -> None:
    runs = compared([("empty", "waiting", Store().snapshot()), ("run", "finished", seen(cycled(4)))])
    assert row(runs[0])[4:6] == [words.ABSENT] * 2
    assert row(runs[1])[8] == f"{48 / 120:.0%}".replace("%", " %")
    assert sum(shares(runs[1].snapshot).values()) == pytest.approx(1.0)
    assert shares(runs[1].snapshot)[Phase.PREDICT] == pytest.approx(48 / 120)
    for axis in ("step", "time", "backward"):
        for measured in ("training", "validation"):
            figure = figures.losses(runs, axis, measured)
            assert [trace["name"] for trace in figure.traces] == ["empty", "run"]
            assert len({trace["line"]["color"] for trace in figure.traces}) == 2
    assert figures.phase_shares(runs).columns["PREDICT"].columns["x"].tolist() == [0.0, 0.4]


def comparison(run: Cost | None, speedup: float | None, gap: float = -0.1) -> Comparison:
    equal = EqualLoss(0.5, Cost(100, 100, 50.0), run, 0.6 if run else None, speedup)
    at = Gap(40.0, 0.45, 0.5, gap)
    return Comparison("base", "validation loss", (), 100, 50.0, 0.4, 0.5, at, at, at, equal, None)


def test_the_account_says_whether_prediction_paid() -> None:
    paid = comparison(Cost(100, 40, 20.0), 2.5)
    assert baseline.headline(paid).startswith("This run reached the baseline's last validation loss 2.50 times faster")
    assert ("60% fewer" in {row[3] for row in baseline.table(paid)}) and "2.50x" in {r[3] for r in baseline.table(paid)}
    lost = comparison(Cost(100, 40, 100.0), 0.5, gap=0.2)
    assert "2.00 times slower" in baseline.headline(lost)
    assert "20.0% higher" in {row[3] for row in baseline.table(lost)}
    never = comparison(None, None)
    assert "has not reached" in baseline.headline(never) and baseline.table(never)[0][1] == "never reached"
