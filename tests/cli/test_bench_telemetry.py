"""``hybrid bench telemetry --quick``: it measures what it says, and its page comes from its JSON alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Here
from tests.conftest import Hybrid


@pytest.fixture(scope="module")
def measured(hybrid: Hybrid, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """(JSON, page)."""
    file = tmp_path_factory.mktemp("bench") / "page.md"
    said = hybrid("bench", "telemetry", "--quick", "--json", "--write", file)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout), file


def test_every_figure_is_there_and_is_a_measurement(measured: tuple[dict[str, Any], Path]) -> None:
    figures, _ = measured
    ours = [c for c in figures["costs"] if c["what"].startswith("one StepRecord")]
    situations = ["dashboard absent", "dashboard present", "dashboard stopped", "disk stalled"]
    assert [c["situation"] for c in ours] == situations
    assert all(0 < c["p50_us"] <= c["p99_us"] for c in figures["costs"])
    theirs = [c for c in figures["costs"] if "SummaryWriter" in c["what"]]
    assert [c["situation"] for c in theirs] == situations, "tensorboard is one of the developer's tools"
    assert figures["lost"] == dict.fromkeys(situations, 0)
    assert [d["measured"] for d in figures["delays"]] == [10, 100] and figures["command"]["measured"] == 5
    assert figures["throughput"]["lost"] == 0
    small, large = figures["joins"]
    assert (small["rows"], small["sealed"], large["rows"], large["sealed"]) == (1000, 0, 80_000, 50_000)
    assert large["bytes_per_step"] > 0 and 0 < large["first_seconds"] < large["all_seconds"]
    assert all(agent["memory_mb"] > 10 for agent in figures["agents"])
    assert len(figures["goals"]) == 4 + 2 + 1 + 1 + 2 and {g["met"] for g in figures["goals"]} <= {True, False}


def test_the_page_is_made_of_the_json_alone(
    measured: tuple[dict[str, Any], Path], hybrid: Hybrid, tmp_path: Path
) -> None:
    figures, page = measured
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    said = hybrid("bench", "telemetry", "--from", tmp_path / "figures.json", "--write", tmp_path / "again.md")
    assert said.returncode == 0, said.stderr
    assert said.stdout == page.read_text() == (tmp_path / "again.md").read_text()
    assert "dashboard stopped" in said.stdout and "80,000" in said.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--from", "none.json"], ["none.json", "read"]),
        (["--from", "none.json", "--quick"], ["--from", "--quick"]),
        (["--write", "no-such-folder/b.md"], ["no-such-folder"]),
    ],
)
def test_bad_options_are_one_sentence_and_exit_code_2(
    words: list[str], named: list[str], here: Callable[..., Here]
) -> None:
    said = here("bench", "telemetry", *words)
    assert said.returncode == 2
    assert all(name in said.stderr for name in named) and "Traceback" not in said.stderr
