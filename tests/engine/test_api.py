"""Claims about calling HybridTrainer at odd moments and with odd things: it does what was asked, or says why not."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import end_agents
from tests.engine.rig import EAGER, batch_of, network, per_sample
from trainer_core import HybridTrainer
from trainer_core.run import train
from trainer_core.spec.errors import ConfigError, RunError, UserError
from trainer_core.spec.records import Record, RunStarted

BATCHES = [batch_of(i) for i in range(5)]


def trainer(folder: Path, **options: Any) -> HybridTrainer:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return HybridTrainer(model, optimizer, per_sample, EAGER, folder / "run", serve=False, **options)


@pytest.mark.parametrize("steps", [None, 8])
def test_a_run_that_has_ended_does_not_pretend_to_go_on(tmp_path: Path, steps: int | None) -> None:
    with trainer(tmp_path) as t:
        assert t.run(BATCHES, steps) == (steps or 5)
        with pytest.raises(RunError, match=r"the run has ended \(finished: .*\): make a new trainer with resume=True"):
            t.run(BATCHES, steps and 2 * steps)
    with trainer(tmp_path, resume=True) as t:
        assert t.run(BATCHES, 16) == 16


def test_a_stopped_run_stays_where_it_is(tmp_path: Path) -> None:
    with trainer(tmp_path) as t:
        t.step(BATCHES[0])
        t.stop("enough")
        assert t.run(BATCHES) == 1 and t.outcome == ("stopped", "enough")


@pytest.mark.parametrize("begun", [True, False])
def test_a_closed_trainer_takes_no_step_that_nobody_would_record(tmp_path: Path, begun: bool) -> None:
    t = trainer(tmp_path)
    if begun:
        t.step(BATCHES[0])
    t.close()
    for act in (lambda: t.step(BATCHES[1]), lambda: t.run(BATCHES)):
        with pytest.raises(RunError, match=r"the run has ended \(the trainer was closed\)"):
            act()
    assert t.step_count == int(begun)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"model": print}, UserError, r"model = <built-in function print>: must be a torch\.nn\.Module"),
        ({"optimizer": "AdamW"}, UserError, r"optimizer = 'AdamW': must be a torch\.optim\.Optimizer"),
        ({"config": 5}, ConfigError, "config = 5: must be a Config, a mapping, the path of a TOML file, or None"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_part_of_another_type_is_refused_by_name(
    tmp_path: Path, wrong: dict[str, Any], error: type[UserError], words: str
) -> None:
    model = network()
    right = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.01), "config": EAGER}
    with pytest.raises(error, match=words):
        HybridTrainer(loss_fn=per_sample, run_dir=tmp_path / "run", serve=False, **(right | wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_run_is_being_made_stops_it_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    def at_once(record: Record, attempt: int) -> None:
        if isinstance(record, RunStarted) and not record.resumed_from:
            os.kill(os.getpid(), number)

    few = {"batch_size": "8"}
    result = train("digits", run_dir=tmp_path / "run", steps=30, overrides=few, on_record=at_once)
    assert (result.state, result.because) == ("stopped", f"stopped by {number.name}") and result.step < 30
    again = train("digits", run_dir=tmp_path / "run", steps=30, resume=True, on_record=at_once)
    end_agents(tmp_path)
    assert (again.state, again.step) == ("finished", 30)
