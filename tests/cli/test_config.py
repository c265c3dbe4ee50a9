"""``hybrid config check`` and ``--set``: what is valid is printed resolved, what is not is named."""

import tomllib
from pathlib import Path

import pytest

from tests.conftest import Hybrid
from trainer_core.cli.training import parsed
from trainer_core.spec.errors import UserError


def test_the_resolved_configuration_is_toml_that_resolves_to_itself(hybrid: Hybrid, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('preset = "small"\n[hybrid_trainer_config]\nfull_steps = 33\n')
    first = hybrid("config", "check", file)
    assert (first.returncode, first.stderr) == (0, "")
    resolved = tomllib.loads(first.stdout)
    assert resolved["hybrid_trainer_config"]["full_steps"] == 33
    assert resolved["hybrid_trainer_config"]["max_predict_steps"] == 60
    file.write_text(first.stdout)
    assert hybrid("config", "check", file).stdout == first.stdout


def test_a_key_read_in_another_section_is_noted_on_stderr(hybrid: Hybrid, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[learning_rate]\ninitial = 1e-3\nbatch_size = 32\n")
    said = hybrid("config", "check", file)
    assert said.returncode == 0
    assert tomllib.loads(said.stdout)["training"]["batch_size"] == 32
    assert said.stderr.startswith("note: ") and "batch_size" in said.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[hybrid_trainer_config]\nfull_stepz = 3\n", ("full_stepz", "full_steps")),
        ('[hybrid_trainer_config]\nfull_steps = "many"\n', ("full_steps", "many")),
        ("[hybrid_trainer_config]\nconfidence_threshold = 1.5\n", ("confidence_threshold", "1.5", "1")),
        ("[hybrid_trainer_config\n", ("not valid TOML",)),
        ('preset = "huge"\n', ("huge", "small")),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_code_2(
    hybrid: Hybrid, tmp_path: Path, text: str, named: tuple[str, ...]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    said = hybrid("config", "check", file)
    assert (said.returncode, said.stdout) == (2, "")
    assert len(said.stderr.strip().splitlines()) == 1
    assert all(word in said.stderr for word in named)


def test_a_missing_file_is_named(hybrid: Hybrid, tmp_path: Path) -> None:
    said = hybrid("config", "check", tmp_path / "none.toml")
    assert said.returncode == 2
    assert "none.toml" in said.stderr and "Traceback" not in said.stderr


def test_settings_are_split_at_the_first_equals_sign() -> None:
    assert parsed(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UserError, match="write KEY=VALUE"):
        parsed(["full_steps"])


def test_with_a_task_it_is_what_hybrid_train_would_use(hybrid: Hybrid, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nseed = 5\n")
    alone, digits = (hybrid("config", "check", file, *more) for more in ((), ("--task", "digits")))
    assert (alone.returncode, digits.returncode) == (0, 0), digits.stderr
    assert "max_predict_steps = 40" in alone.stdout and "max_predict_steps = 100" in digits.stdout
    assert "seed = 5" in digits.stdout
