"""``hybrid send`` with a bad argument of every command: one sentence says what and what is allowed; nothing changes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Here
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from trainer_core.cli.verbs import VERBS
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import accepted

BAD: list[tuple[str, str]] = [
    ("force-full now", "write force-full"),
    ("force-predict 3", "write force-predict"),
    ("force-correct 3", "write force-correct"),
    ("set-threshold confidence_threshold", "write set-threshold NAME VALUE"),
    ("set-threshold confidence_threshold high", "VALUE is a number"),
    ("set-threshold confidence_threshold nan", "value = nan: must be a finite number"),
    ("set-threshold confidence_threshold -inf", "value = -inf: must be a finite number"),
    ("set-threshold confidence_threshold 1.5", "must be a number from 0 to 1"),
    ("set-threshold full_steps 2.5", "must be a whole number from 1 to 1e+07"),
    ("set-threshold nonsense 1", "no such setting; these can be changed while training runs"),
    ("set-threshold warmup_steps 1", "cannot be changed while training runs"),
    ("rollback a b", "write rollback [CHECKPOINT]"),
    ("checkpoint now", "write checkpoint"),
    ("pause 5", "write pause"),
    ("resume 5", "write resume"),
    ("stop now", "write stop"),
    ("set-learning-rate", "write set-learning-rate VALUE"),
    ("set-learning-rate fast", "VALUE is a number"),
    ("set-learning-rate 0", "value = 0: must be a finite number above 0 and at most 100"),
    ("set-learning-rate -1", "value = -1: must be a finite number above 0 and at most 100"),
    ("set-learning-rate inf", "value = inf: must be a finite number above 0 and at most 100"),
    ("scale-learning-rate 0 --yes", "factor = 0: must be a finite number above 0"),
    ("scale-learning-rate nan --yes", "factor = nan: must be a finite number above 0"),
    ("set-gradient-clip -1", "max_norm = -1: must be a finite number at least 0"),
    ("set-gradient-clip 1e9", "must be a number from 0 to 1e+06"),
    ("set-weight-decay nan", "value = nan: must be a finite number at least 0"),
    ("set-weight-decay 11", "must be a number from 0 to 10"),
    ("set-knob dropout", "write set-knob NAME VALUE"),
    ("set-knob dropout inf", "value = inf: must be a finite number"),
    ("set-phase-length NOPE 3", "PHASE is one of WARMUP, FULL, PREDICT, CORRECT"),
    ("set-phase-length FULL 2.5", "STEPS is a whole number"),
    ("set-phase-length FULL 0", "steps = 0: must be a whole number at least 1"),
    ("set-phase-length FULL 99999999999999999999999", "STEPS is a whole number of at most"),
    ("set-phase-length WARMUP 3", "cannot be changed while training runs"),
    ("lock up", "write lock"),
    ("unlock up", "write unlock"),
    ("acknowledge", "write acknowledge ALERT_ID"),
    ("silence plateau often", "STEPS is a whole number"),
    ("silence plateau 0", "steps = 0: must be a whole number at least 1 and at most 1e+07"),
    ("silence nonsense 5", "there is no alert rule called nonsense; there are: "),
    ("annotate " + "x" * 2001, "must be a text of 1 to 2000 characters"),
    ("remedy nonsense --yes", "there is no remedy nonsense; there are: nan_loss"),
    ("pause --ttl 0", "ttl_s = 0: must be a finite number above 0 and at most 86400"),
    ("pause --ttl nan", "ttl_s = nan: must be a finite number above 0 and at most 86400"),
    ("pause --at -1", "or equal to 0"),
    ("pause --id short", "8 to 64 characters"),
    ("format-disk", "no such command"),
]


@pytest.fixture
def trainer(runs_dir: Path) -> Iterator[Trainer]:
    with Trainer(runs_dir / "run") as trainer:
        trainer.steps(1)
        client = Client(trainer.run_dir)
        until(client.hello)
        client.close()
        yield trainer


def test_the_table_has_every_word() -> None:
    assert {line.split()[0] for line, _ in BAD} >= set(VERBS)


def test_a_bad_argument_is_refused_in_a_sentence_and_changes_nothing(
    trainer: Trainer, here: Callable[..., Here]
) -> None:
    for line, why in BAD:
        said = here("send", trainer.run_dir, *line.split())
        heard = said.stderr + said.stdout
        assert said.returncode in (2, 3), (line, heard)
        assert why in " ".join(heard.split()), (line, heard)
        assert "Traceback" not in heard
    assert trainer.taken == [] and accepted(trainer.run_dir) == []
