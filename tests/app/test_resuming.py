"""What a page says that goes on with a run: a line that a shell takes, or the call in a script."""

import shlex

import msgspec
import pytest

from app.views.strip import strip
from tests.app.rows import Script
from tests.app.test_views import Status, seen
from trainer_core.spec.records import RunEnvironment, RunStarted

RUN = 'runs/训练 <b>a & "b"\'s'


def begun(*command_line: str, **started: object) -> Script:
    script = Script().start()
    (row,) = script.rows
    assert isinstance(row.record, RunStarted)
    script.rows[0] = msgspec.structs.replace(row, record=msgspec.structs.replace(row.record, **started))
    script.say(RunEnvironment(0, command_line, "/here", "host", "Linux", "3.11", "cpu", {}))
    return script.steps(5)


@pytest.mark.parametrize(
    ("line", "task", "wanted"),
    [
        (("python", "/bin/hybrid", "train", "digits", "--plain"), "digits", "digits"),
        (("python", "/src/trainer_core/__main__.py", "train", "--seed", "1", "digits"), "digits", "digits"),
        (("python", "/bin/hybrid", "train", "--steps", "9", "mine:make"), "mine", "mine:make"),
    ],
)
def test_a_run_of_hybrid_train_goes_on_by_a_line_that_a_shell_takes(
    line: tuple[str, ...], task: str, wanted: str
) -> None:
    for state in ("crashed", "failed", "stopped"):
        shown = strip(seen(begun(*line, task=task)), Status(state), RUN, 0.0)
        assert shlex.split(shown.command) == ["hybrid", "train", wanted, "--run-dir", RUN, "--resume"]
        assert shown.advice.endswith(":")


def test_a_run_of_several_ranks_goes_on_with_as_many() -> None:
    line = ("python", "/src/trainer_core/__main__.py", "train", "digits")
    shown = strip(seen(begun(*line, task="digits", world_size=2)), Status("crashed"), "runs/two", 0.0)
    assert shown.command == ("torchrun --nproc-per-node=2 -m trainer_core train digits --run-dir runs/two --resume")


@pytest.mark.parametrize("line", [("python", "own.py", "train", "digits"), ("python", "train")])
def test_a_script_of_ones_own_is_started_again_and_no_task_is_made_up(line: tuple[str, ...]) -> None:
    for state in ("crashed", "failed", "stopped"):
        shown = strip(seen(begun(*line, task="custom")), Status(state), RUN, 0.0)
        assert shown.command == f"HybridTrainer(..., run_dir={RUN!r}, resume=True)"
        assert shown.advice.endswith("start the script again with")


def test_the_report_of_a_finished_run_is_a_line_that_a_shell_takes() -> None:
    shown = strip(seen(Script().start().steps(5)), Status("finished"), RUN, 0.0)
    assert shlex.split(shown.command) == ["hybrid", "report", RUN]
