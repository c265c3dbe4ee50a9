"""A task of the user's own: found beside the caller, called with what it takes, refused with one sentence."""

from pathlib import Path

import pytest
import torch

from trainer_core.spec.config import Config
from trainer_core.spec.errors import UserError
from trainer_core.tasks import make_task

SOURCE = """
import torch

class Task:
    def model(self): return torch.nn.Linear(8, 2)
    def batch(self, index): return torch.ones(4, 8), torch.zeros(4, dtype=torch.long)
    def loss(self, model, batch): return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

def everything(config, data, device): return Task()
def nothing(): return Task()
def too_much(surprise): return Task()
def wrong(): return 3
value = 3
"""
CPU = torch.device("cpu")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of its own name in the working directory."""
    name = f"task_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("function", ["everything", "nothing"])
def test_a_function_beside_the_caller_makes_the_task_from_what_it_takes(module: str, function: str) -> None:
    task = make_task(f"{module}:{function}", Config(), None, CPU)
    assert task.loss(task.model(), task.batch(0)).isfinite()


@pytest.mark.parametrize(
    ("function", "says"),
    [("too_much", "surprise"), ("wrong", "no model, batch, loss"), ("value", "is int"), ("absent", "has no absent")],
)
def test_a_function_that_makes_no_task_is_one_sentence(module: str, function: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        make_task(f"{module}:{function}", Config(), None, CPU)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "says"), [("nosuch", "digits, code_lm"), ("no_such_module:f", "cannot import")])
def test_an_unknown_task_says_what_there_is(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_task(name, Config(), None, CPU)
