"""``hybrid send`` and the knobs of a run: its words, its bounds, and the list of them where one is misspelt."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Here, until
from trainer_core.cli.knobs import meant
from trainer_core.spec.commands import Pause, SetKnob
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import KnobDeclared
from trainer_core.telemetry.journal import JournalWriter

LOOP = """
import time
from trainer_core import Monitor
box = {"p": 0.1}
with Monitor("runs/own") as monitor:
    monitor.knob("dropout", lambda: box["p"], lambda value: box.update(p=value), low=0, high=0.5)
    while True:
        monitor.step(loss=box["p"])
        time.sleep(0.005)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    writer = JournalWriter(tmp_path)
    writer.append([(0.0, 0, KnobDeclared(0, "dropout", 0.0, 0.5, 0.1))])
    yield tmp_path
    writer.close()


def test_the_name_of_a_knob_is_a_word(run_dir: Path) -> None:
    assert (
        meant(run_dir, "dropout", ["0.3"]) == meant(run_dir, "set-knob", ["dropout", "0.3"]) == SetKnob("dropout", 0.3)
    )
    assert meant(run_dir, "pause", []) == Pause()


@pytest.mark.parametrize("words", [["set-knob"], ["set-knob", "dropout"], ["dropuot", "0.3"]])
def test_what_is_not_understood_lists_the_knobs(run_dir: Path, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"this run has dropout \(0 to 0.5\)"):
        meant(run_dir, words[0], words[1:])


def test_without_a_knob_a_wrong_word_is_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such command; one of"):
        meant(tmp_path, "dropout", ["0.3"])


def test_a_knob_is_turned_refused_and_read_back_from_a_shell(runs_dir: Path, here: Callable[..., Here]) -> None:
    run = runs_dir / "own"
    process = subprocess.Popen([sys.executable, "-c", LOOP], cwd=runs_dir.parent, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: process.poll() is not None or (run / "endpoint.json").exists(), "the loop has no agent")
        turned = here("send", run, "dropout", "0.4", "--json")
        assert turned.returncode == 0, turned
        said = json.loads(turned.stdout)
        assert (said["state"], said["before"], said["after"]) == ("applied", "0.1", "0.4")
        refused = here("send", run, "dropout", "0.6")
        assert refused.returncode == 3 and "from 0 to 0.5" in refused.stdout
        assert here("send", run, "stop", "--yes").returncode == 0
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
