"""Claims about the Dockerfile that need no container: what it copies is there, what it installs and starts exists."""

import json
import re
import tomllib
from pathlib import Path

from tests.conftest import Hybrid
from trainer_core.tasks import BUILT_IN

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def said(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in LINES if line.startswith(f"{word} ")]


def test_everything_that_is_copied_is_there() -> None:
    copied = [source for line in said("COPY") for source in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "trainer_core", "app"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_everything_that_the_package_is_built_from_is_copied() -> None:
    """Setuptools fails on a readme or a license that is not there, and leaves out a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {source for line in said("COPY") for source in line.split()[:-1]}
    packages = [name.rstrip("*.") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    needed = {project["project"]["readme"], *project["project"]["license-files"], *packages}
    assert needed <= copied


def test_each_target_installs_an_extra_that_exists_as_an_own_user() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = [found for line in said("RUN") for found in re.findall(r"'\.\[(\w+)\]' -c constraints.txt", line)]
    assert installed == ["train", "dashboard"] and set(installed) <= set(extras)
    assert [line.split(" AS ")[1] for line in said("FROM")] == ["base", "trainer", "dashboard"]
    assert said("USER") == ["hybrid", "hybrid"]


def test_each_target_starts_a_command_that_exists_in_a_directory_that_its_user_may_write(hybrid: Hybrid) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert [json.loads(line) for line in said("ENTRYPOINT")] == [["hybrid"], ["hybrid"]] and "hybrid" in scripts
    train, dashboard = (json.loads(line) for line in said("CMD"))
    for words in (train, dashboard):
        shown = hybrid(words[0], "--help")
        assert shown.returncode == 0 and all(word in shown.stdout for word in words if word.startswith("--"))
    assert train[1] in BUILT_IN and train[-1].startswith("/runs/") and dashboard[1] == "/runs"
    assert "mkdir /runs && chown hybrid:hybrid /runs" in said("RUN")[0] and said("VOLUME") == ["/runs"]


def test_the_dashboard_s_image_is_not_built_with_torch_in_it() -> None:
    assert "! python -c 'import torch'" in next(line for line in said("RUN") if "[dashboard]" in line)
