"""``hybrid bench engine``: a tiny race through the command line, its figures by hand, its document from its JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Here
from tests.conftest import Hybrid
from trainer_core.bench import race as racing
from trainer_core.bench.figures import goals, ratio, reached, seconds, speed_beside, speedup, task_figures
from trainer_core.bench.markdown import document
from trainer_core.bench.plan import choices, planned
from trainer_core.bench.race import Tuned, race, shrunk
from trainer_core.bench.recorded import merged
from trainer_core.bench.results import Grid, Point, Results, Run
from trainer_core.spec.errors import UserError


@pytest.fixture(scope="module")
def measured(hybrid: Hybrid, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(JSON, document) of a race of 0.15 s for each arm."""
    file = tmp_path_factory.mktemp("bench") / "benchmarks.md"
    words = ("--task", "digits", "--seeds", 1, "--budget", 0.15, "--quick", "--json", "--write", file)
    said = hybrid("bench", "engine", *words)
    assert said.returncode == 0, said.stderr
    assert "digits: seed 0" in said.stderr
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    return json.loads(said.stdout), file.read_text(encoding="utf-8")


def test_every_arm_is_there_and_what_it_paid_adds_up(measured: tuple[dict[str, Any], str]) -> None:
    (task,) = measured[0]["tasks"]
    arms = {arm["name"]: arm for arm in task["arms"]}
    wanted = {"plain tuned", "plain", "plain 3x", "plain 10x", "plain 30x", "hybrid locked"}
    wanted |= {f"hybrid {predictor}" for predictor in choices("predictor_config", "type")}
    assert wanted <= set(arms)
    assert {name for guard in task["guards"] for name in (guard["hybrid"], guard["plain"])} <= set(arms)
    assert set(task["grid"]["losses"]) == {"0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03"}
    assert f"{task['grid']['tuned']:g}" in task["grid"]["losses"]
    for arm in arms.values():
        (run,) = arm["runs"]
        if run["failed"] is not None:
            continue
        points = run["points"]
        for axis in ("seconds", "steps", "backward_passes", "cost"):
            assert [p[axis] for p in points] == sorted(p[axis] for p in points)
        last = points[-1]
        assert points[0]["steps"] == 0 and last["seconds"] >= task["budget_seconds"]
        assert all(p["cost"] >= 3 * p["backward_passes"] for p in points)
        if arm["kind"] == "plain" or arm["name"] == "hybrid locked":
            assert last["cost"] == 3 * last["backward_passes"] == 3 * last["steps"] == 3 * run["batches"]
            assert run["kept"] == run["undone"] == 0


def test_the_json_alone_gives_the_document_again(measured: tuple[dict[str, Any], str]) -> None:
    said, text = measured
    results = msgspec.convert(said, Results)
    assert document(results) == text
    assert "| hybrid Linear |" in text and "4.5x" in text and "hybrid bench engine --task digits" in text
    assert msgspec.to_builtins(goals(results, [task_figures(t) for t in results.tasks])) == said["goals"]
    assert {goal["met"] for goal in said["goals"]} <= {True, False, None}
    assert said["overhead"]["plain_ms"] > 0 and said["versions"]["torch"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task", "digit"], ["digit", "code_lm"]),
        (["--seeds", "0"], ["--seeds", "0", "1"]),
        (["--budget", "-3"], ["--budget", "-3", "0.1"]),
        (["--budget", "nan"], ["--budget", "nan"]),
        (["--write", "no-such-folder/b.md"], ["no-such-folder"]),
        (["--from", "none.json"], ["none.json", "read"]),
        (["--from", "none.json", "--quick"], ["--from", "--quick"]),
    ],
)
def test_bad_options_are_one_sentence_and_exit_code_2(
    here: Callable[..., Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = here("bench", "engine", *words)
    assert said.returncode == 2
    assert len(said.stderr.strip().splitlines()) == 1 and all(word in said.stderr for word in named)
    assert not list(tmp_path.iterdir())


def test_recorded_results_are_shown_again_and_put_together(
    here: Callable[..., Here], measured: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    said, text = measured
    (tmp_path / "a.json").write_text(json.dumps(said))
    shown = here("bench", "engine", "--from", tmp_path / "a.json", "--write", tmp_path / "b.md")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "b.md").read_text() == text and "digits, guard" in shown.stdout
    results = msgspec.convert(said, Results)
    other = msgspec.structs.replace(
        results, command="x", tasks=(msgspec.structs.replace(results.tasks[0], task="code_lm"),)
    )
    both = merged([results, other])
    assert [t.task for t in both.tasks] == ["digits", "code_lm"] and both.command == f"{results.command} and x"
    with pytest.raises(UserError, match="digits is in two files"):
        merged([results, results])
    with pytest.raises(UserError, match="different machines"):
        merged([results, msgspec.structs.replace(other, versions={"torch": "1"})])
    (tmp_path / "c.json").write_text("{}")
    assert here("bench", "engine", "--from", tmp_path / "c.json").returncode == 2


def path(*losses: float, each: float = 1.0) -> list[Point]:
    """Validations ``each`` seconds apart, from 0."""
    return [Point(i * each, i, i, 3.0 * i, loss) for i, loss in enumerate(losses)]


def test_a_loss_is_reached_where_the_line_between_two_validations_crosses_it() -> None:
    assert reached(path(4.0, 2.0, 1.0), 3.0, seconds) == 0.5
    assert reached(path(4.0, 2.0, 2.5, 1.0), 2.0, seconds) == 1.0
    assert reached(path(4.0, 2.0), 1.0, seconds) is None
    assert speedup(path(4.0, 1.0), path(4.0, 3.0, 2.0, 1.0), 1.0, seconds) == 3.0


def test_a_guard_that_falls_behind_is_below_one() -> None:
    """The slower arm ends at 2.0, where the faster one was after two thirds of the time."""
    assert ratio(path(4.0, 2.0, each=3.0), path(4.0, 3.0, 2.0, 1.0), seconds) == pytest.approx(2 / 3)
    assert ratio(path(4.0, 1.0), path(4.0, 1.0), seconds) == 1.0


def test_a_guard_compares_at_ten_losses_on_the_way_and_not_at_the_last_alone() -> None:
    falling = [4.0 * 0.8**i for i in range(20)]
    plain = path(*falling)
    assert speed_beside(plain, plain, seconds) == pytest.approx(1.0)
    assert speed_beside(path(*falling, each=1.25), plain, seconds) == pytest.approx(0.8)
    lucky = [*falling[:-1], falling[-1] * 0.5]
    assert speed_beside(plain, path(*lucky), seconds) > 0.9, "one lucky end does not decide"
    assert ratio(plain, path(*lucky), seconds) <= 1.0
    stuck = path(*falling[:10], *[falling[9]] * 10)
    assert 0.5 < speed_beside(stuck, plain, seconds) < 0.9
    assert speed_beside(plain, path(1.0, 2.0), seconds) is None


def test_a_guards_pace_is_what_a_unit_of_cost_takes_whatever_the_loss_does(
    measured: tuple[dict[str, Any], str],
) -> None:
    """Hybrid takes five seconds for the cost that plain pays in four; its losses are better all the same."""
    task = msgspec.convert(measured[0], Results).tasks[0]
    guard = task.guards[0]
    paths = {guard.hybrid: path(4.0, 1.0, 0.5, each=1.25), guard.plain: path(4.0, 3.0, 2.0)}

    def walked(name: str, runs: tuple[Run, ...]) -> tuple[Run, ...]:
        return tuple(msgspec.structs.replace(run, points=tuple(paths.get(name, run.points))) for run in runs)

    arms = tuple(msgspec.structs.replace(arm, runs=walked(arm.name, arm.runs)) for arm in task.arms)
    found = task_figures(msgspec.structs.replace(task, arms=arms)).guards[0]
    assert found.pace_ratios == (pytest.approx(0.8),)
    assert found.time_ratios[0] is not None and found.time_ratios[0] > 1.0


@pytest.mark.parametrize(
    ("left", "validating", "budget"), [(1000.0, 0.1, 3.0), (20.0, 0.1, 1.5), (20.0, 1.0, 0.6), (1.0, 9.0, 0.5)]
)
def test_a_quick_race_shrinks_its_budget_to_the_time_that_is_left(
    left: float, validating: float, budget: float
) -> None:
    assert shrunk(3.0, left, runs=10, validating=validating) == pytest.approx(budget)


@pytest.mark.parametrize(("steps", "budget"), [(None, 3.0), (350, 35.0), (1, 0.5)])
def test_a_race_of_so_many_steps_has_the_time_they_take_among_rivals(
    monkeypatch: pytest.MonkeyPatch, steps: int | None, budget: float
) -> None:
    paced = Run(0, (Point(2.0, 20, 20, 60.0, 2.5),), 20, 0, 0, (), None, None)
    monkeypatch.setattr(racing, "tune", lambda *_: Tuned(Grid(0.75, {"0.001": 0.5}, 1e-3), 99.0, 0.1))
    monkeypatch.setattr(racing, "_one_seed", lambda work, planned, *_: [(arm.name, paced) for arm in planned])
    assert race("digits", (0,), 3.0, 6, lambda _: None, steps=steps).budget_seconds == pytest.approx(budget)


@pytest.mark.parametrize("tuned", [1e-3, 1e-2])
def test_guards_differ_in_nothing_but_prediction(tuned: float) -> None:
    for task in ("digits", "code_lm"):
        arms, guards = planned(task, tuned)
        by_name = {arm.name: arm for arm in arms}
        assert len(by_name) == len(arms)
        assert any(by_name[g.plain].settings["learning_rate.initial"] == "0.001" for g in guards)
        for guard in guards:
            hybrid, plain = by_name[guard.hybrid], by_name[guard.plain]
            assert (hybrid.kind, plain.kind) == ("hybrid", "plain")
            assert (hybrid.settings, hybrid.compressed) == (plain.settings, plain.compressed)


def test_a_failure_is_in_the_document_and_misses_its_goal(measured: tuple[dict[str, Any], str]) -> None:
    results = msgspec.convert(measured[0], Results)
    (task,) = results.tasks
    arms = tuple(
        msgspec.structs.replace(
            arm, runs=(msgspec.structs.replace(arm.runs[0], points=(), failed="the loss of step 3 is nan"),)
        )
        if arm.name == "hybrid Linear"
        else arm
        for arm in task.arms
    )
    broken = msgspec.structs.replace(results, tasks=(msgspec.structs.replace(task, arms=arms),))
    assert "failed: the loss of step 3 is nan" in document(broken)
    first = goals(broken, [task_figures(t) for t in broken.tasks])[0]
    assert (first.measured, first.met) == ("never reached", False)


def test_a_goal_missed_by_less_than_its_rounding_shows_by_how_much(measured: tuple[dict[str, Any], str]) -> None:
    results = msgspec.convert(measured[0], Results)
    said = []
    for models in (3.029, 2.999, 3.4):
        memory = tuple(msgspec.structs.replace(m, models=models, failed=None) for m in results.memory)
        changed = msgspec.structs.replace(results, memory=memory)
        found = goals(changed, [task_figures(task) for task in changed.tasks])
        said.append(next((g.goal, g.measured, g.met) for g in found if "memory" in g.figure))
    assert said == [("<= 3.0", "3.0 (3.029)", False), ("<= 3.0", "3.0", True), ("<= 3.0", "3.4", False)]
