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


@pytest.mark.parametrize("given", ["./{}.py:nothing", "{}.py:nothing", ".{}:nothing", "folder/{}:nothing", ":nothing"])
def test_a_path_is_no_module_and_is_said_to_be_none(module: str, given: str) -> None:
    """A name that begins with a dot was a TypeError of importlib's."""
    with pytest.raises(UserError, match=r"write module:function, .*no path, no \.py"):
        make_task(given.format(module), Config(), None, CPU)


@pytest.mark.parametrize("line", ["import torch\ntorch.nothing_of_that_name", "raise ValueError('the data is broken')"])
def test_what_a_module_raises_while_it_is_imported_is_its_own_to_show(tmp_path: Path, module: str, line: str) -> None:
    """It was said to have no such function."""
    (tmp_path / f"{module}_broken.py").write_text(f"{line}\ndef make(): return 1\n")
    with pytest.raises((AttributeError, ValueError), match=r"nothing_of_that_name|the data is broken"):
        make_task(f"{module}_broken:make", Config(), None, CPU)


def test_a_task_whose_name_is_no_text_is_refused(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}_named.py").write_text(f"{SOURCE}\nclass Named(Task): name = 5\n")
    with pytest.raises(UserError, match="a Named whose name is 5: must be a text"):
        make_task(f"{module}_named:Named", Config(), None, CPU)
