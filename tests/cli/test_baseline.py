"""``hybrid train --plain``, ``--baseline`` and ``hybrid report --baseline`` on real runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Here
from tests.conftest import Hybrid, end_agents

STEPS = 160
SHORT = ("--set", "validate_every=40", "--set", "checkpoint_every=0")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, hybrid: Hybrid) -> Iterator[Path]:
    """A folder with a plain run and a hybrid one that was started with it as its baseline."""
    runs = tmp_path_factory.mktemp("pair")
    for words in (("--plain", "--run-dir", runs / "plain"), ("--run-dir", runs / "h", "--baseline", runs / "plain")):
        said = hybrid("train", "digits", "--steps", STEPS, *SHORT, *words)
        assert said.returncode == 0, said.stderr
    yield runs
    end_agents(runs)


def test_a_plain_run_never_probes_and_says_what_it_is(hybrid: Hybrid, pair: Path) -> None:
    figures = json.loads(hybrid("report", pair / "plain", "--json").stdout)
    assert (figures["plain"], figures["backward_passes"], figures["steps"]) == (True, STEPS, STEPS)
    assert figures["predictions"]["entered"] == 0 and figures["ledger"]["prediction"]["probes"] == 0
    assert figures["comparison"] is None and figures["ledger"]["saved"]["basis"] == "estimate"


def test_the_report_compares_a_run_with_the_baseline_it_was_started_with(hybrid: Hybrid, pair: Path) -> None:
    figures = json.loads(hybrid("report", pair / "h", "--json").stdout)
    compared, ledger = figures["comparison"], figures["ledger"]
    assert (compared["baseline"], compared["measure"], compared["notes"]) == (
        str(pair / "plain"),
        "validation loss",
        [],
    )
    assert compared["at_equal_steps"]["at"] == STEPS
    gap = compared["at_equal_steps"]
    assert gap["gap"] == pytest.approx((gap["run"] - gap["baseline"]) / gap["baseline"])
    assert ledger["saved"]["basis"] == "measured"
    assert ledger["backward_skipped"] == STEPS - figures["backward_passes"] > 0
    paid = sum(cost["seconds"] for cost in ledger["phases"].values()) + sum(ledger["prediction"].values())
    assert paid == pytest.approx(ledger["charged_seconds"])
    assert ledger["prediction"]["probes"] > 0
    said = hybrid("report", pair / "h").stdout
    assert "at equal steps (160:" in said and "measured" in said and "an estimate" not in said


def test_a_baseline_given_to_report_is_compared_too_and_a_lost_one_is_an_estimate(
    hybrid: Hybrid, pair: Path, tmp_path: Path
) -> None:
    shutil.copytree(pair / "h", tmp_path / "h")
    lost = hybrid("report", tmp_path / "h", "--json")
    assert lost.returncode == 0 and "plain is gone" in lost.stderr
    assert json.loads(lost.stdout)["ledger"]["saved"]["basis"] == "estimate"
    given = json.loads(hybrid("report", tmp_path / "h", "--json", "--baseline", pair / "plain").stdout)
    assert given["comparison"]["equal_loss"]["baseline"]["backward_passes"] == STEPS


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["digits", "--baseline", "none"], ["none", "journal.db"]),
        (["digits", "--baseline", "PAIR/h"], ["predicted", "--plain"]),
        (["digits", "--baseline", "PAIR/plain", "--set", "batch_size=32"], ["batch_size", "64", "32"]),
        (["digits", "--baseline", "PAIR/plain", "--set", "hidden_dim=8"], ["hidden_dim", "8"]),
        (["digits", "--baseline", "PAIR/plain", "--plain"], ["--plain"]),
    ],
)
def test_what_is_no_baseline_is_refused_before_anything_is_written(
    here: Callable[..., Here], pair: Path, tmp_path: Path, words: list[str], named: list[str]
) -> None:
    said = here("train", *(w.replace("PAIR", str(pair)) for w in words), "--run-dir", tmp_path / "x", "--steps", 5)
    assert said.returncode == 2, said.stderr
    assert len(said.stderr.strip().splitlines()) == 1
    assert all(word in said.stderr for word in named), said.stderr
    assert not (tmp_path / "x" / "journal.db").exists()


def test_report_refuses_a_run_as_its_own_baseline(hybrid: Hybrid, pair: Path) -> None:
    said = hybrid("report", pair / "h", "--baseline", pair / "h")
    assert said.returncode == 2 and "own baseline" in said.stderr


def test_a_resumed_plain_run_stays_plain(hybrid: Hybrid, pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair / "plain", tmp_path / "p")
    said = hybrid("train", "digits", "--resume", "--run-dir", tmp_path / "p", "--steps", STEPS + 40)
    assert said.returncode == 0, said.stderr
    figures = json.loads(hybrid("report", tmp_path / "p", "--json").stdout)
    assert (figures["plain"], figures["backward_passes"]) == (True, STEPS + 40)
    refused = hybrid("train", "digits", "--resume", "--plain", "--run-dir", pair / "h", "--steps", STEPS + 40)
    assert refused.returncode != 0 and "plain" in refused.stderr
    end_agents(tmp_path)
