"""The command line itself: help everywhere, a quick start, the version, usage errors."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Hybrid

ROOT = Path(__file__).parents[2]
COMMANDS = [
    [],
    ["demo"],
    ["train"],
    ["dashboard"],
    ["serve"],
    ["send"],
    ["report"],
    ["export"],
    ["runs"],
    ["config"],
    ["config", "check"],
    ["bench"],
    ["bench", "telemetry"],
    ["bench", "engine"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_everywhere(hybrid: Hybrid, words: list[str]) -> None:
    said = hybrid(*words, "--help")
    assert (said.returncode, said.stderr) == (0, "")
    assert "Usage:" in said.stdout
    assert all(word in said.stdout for word in words)


def test_the_version_is_the_packages(hybrid: Hybrid) -> None:
    assert hybrid("--version").stdout == f"hybrid {version('hybrid-predictive-trainer')}\n"


def test_a_start_loads_neither_torch_nor_streamlit_nor_anything_heavy() -> None:
    heavy = ("torch", "numpy", "polars", "zmq", "streamlit", "plotly", "sklearn")
    code = f"import sys, trainer_core.cli; print([m for m in {heavy!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "[]\n"


@pytest.mark.parametrize("words", [["trian"], ["train"], ["train", "digits", "--stepz", "3"], ["runs", "--jsn"]])
def test_a_wrong_word_is_exit_code_2(hybrid: Hybrid, words: list[str]) -> None:
    said = hybrid(*words)
    assert (said.returncode, said.stdout) == (2, "")
    assert "Traceback" not in said.stderr and said.stderr


def test_constraints_pin_every_dependency_to_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert "torch" in pinned and not any("+" in version for version in pinned.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {
        line.split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        for line in [*project["dependencies"], *extras]
    }
    assert names <= set(pinned)


def test_the_oldest_polars_that_is_allowed_has_what_rows_are_read_with() -> None:
    """1.30 to 1.35 were allowed: exports were a traceback, and no old row was ever sealed."""
    (allowed,) = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if "polars>=" in line]
    found = re.search(r"polars>=(\d+)\.(\d+)", allowed)
    assert found is not None and (int(found[1]), int(found[2])) >= (1, 36)
