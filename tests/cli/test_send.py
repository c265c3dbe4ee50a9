"""``hybrid send`` against a real run: the exit code says whether it was applied, the JSON where and what changed."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Start, train, until
from tests.conftest import Hybrid, end_agents

KEYS = {"kind", "state", "step", "phase", "before", "after", "reason"}
Live = tuple[Path, subprocess.Popen[str]]


NO_CHECKPOINTS = ("--set", "checkpoint_every=10000000", "--set", "keep_best=false")
"""A trainer that is stopped inside a long checkpoint refuses what was sent meanwhile, as it should."""


def _told(hybrid: Hybrid, *words: str | Path | int) -> tuple[int, dict[str, Any]]:
    said = hybrid("send", *words, "--json")
    assert said.stdout, said.stderr
    figures: dict[str, Any] = json.loads(said.stdout)
    assert set(figures) >= KEYS
    return said.returncode, figures


def test_an_applied_command_says_where_and_what_changed_and_the_report_agrees(hybrid: Hybrid, live: Live) -> None:
    run_dir, _ = live
    code, said = _told(hybrid, run_dir, "set-threshold", "confidence_threshold", "0.9", "--wait", "--reason", "a test")
    assert (code, said["kind"], said["state"]) == (0, "set-threshold", "applied")
    assert float(said["before"]) == 0.85 and float(said["after"]) == 0.9
    assert said["step"] > 0 and said["phase"] in ("WARMUP", "FULL", "PREDICT", "CORRECT")
    code, forced = _told(hybrid, run_dir, "force-full", "--wait")
    assert (code, forced["kind"], forced["state"]) == (0, "force-full", "applied")
    assert forced["state_rev"] == said["state_rev"] + 1
    commands = json.loads(hybrid("report", run_dir, "--json").stdout)["commands"]
    assert [(c["kind"], c["state"], c["step"]) for c in commands] == [
        ("set-threshold", "applied", said["step"]),
        ("force-full", "applied", forced["step"]),
    ]
    assert commands[0]["reason"] == "a test"


REFUSED = [
    (["set-threshold", "confidence_threshold", "1.5"], ["confidence_threshold", "1.5"]),
    (["set-threshold", "confidence_threshold", "-1"], ["confidence_threshold", "-1"]),
    (["set-threshold", "confidence_treshold", "0.9"], ["confidence_treshold"]),
    (["set-learning-rate", "nan"], ["value = nan", "above 0"]),
    (["force-full", "--expect-rev", "99"], ["99"]),
    (["rollback", "no-such-checkpoint", "--yes"], ["no-such-checkpoint"]),
]


def test_a_refused_command_is_exit_code_3_with_the_reason(hybrid: Hybrid, live: Live) -> None:
    for words, named in REFUSED:
        code, said = _told(hybrid, live[0], *words)
        assert code == 3, said
        assert said["state"] in ("rejected", "failed")
        assert all(word.lower() in said["reason"].lower() for word in named), said["reason"]


def test_a_dangerous_command_wants_yes_where_nobody_can_be_asked(hybrid: Hybrid, live: Live) -> None:
    run_dir, process = live
    for word in ("rollback", "stop"):
        said = hybrid("send", run_dir, word)
        assert (said.returncode, said.stdout) == (2, "")
        assert "--yes" in said.stderr and len(said.stderr.strip().splitlines()) == 1
    assert process.poll() is None
    assert json.loads(hybrid("report", run_dir, "--json").stdout)["commands"] == []


def test_a_tenfold_learning_rate_wants_yes_and_a_near_one_does_not(hybrid: Hybrid, live: Live) -> None:
    run_dir, _ = live
    code, said = _told(hybrid, run_dir, "scale-learning-rate", "0.5", "--wait")
    assert code == 0
    now = float(said["after"])
    for words in (("set-learning-rate", now * 12), ("set-learning-rate", now / 12), ("scale-learning-rate", 0.1)):
        refused = hybrid("send", run_dir, *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "learning rate" in refused.stderr and "--yes" in refused.stderr
    assert _told(hybrid, run_dir, "set-learning-rate", now * 1.5, "--wait")[0] == 0
    code, said = _told(hybrid, run_dir, "set-learning-rate", now * 20, "--yes", "--wait")
    assert (code, said["state"], float(said["after"])) == (0, "applied", pytest.approx(now * 20, rel=1e-3))


def test_on_a_terminal_a_dangerous_command_asks_and_no_means_no(hybrid: Hybrid, live: Live) -> None:
    run_dir, process = live
    master, slave = pty.openpty()
    os.write(master, b"n\n")
    asked = subprocess.run(
        [sys.executable, "-m", "trainer_core", "send", str(run_dir), "stop"],
        stdin=slave,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(master)
    os.close(slave)
    assert asked.returncode == 3
    assert "Go on? [y/N]" in asked.stderr
    assert process.poll() is None
    assert json.loads(hybrid("report", run_dir, "--json").stdout)["commands"] == []


def test_a_rollback_begins_a_new_attempt(hybrid: Hybrid, live: Live) -> None:
    run_dir, _ = live
    assert _told(hybrid, run_dir, "checkpoint", "--wait")[0] == 0
    code, said = _told(hybrid, run_dir, "rollback", "--yes", "--wait")
    assert (code, said["state"]) == (0, "applied")
    until(lambda: json.loads(hybrid("report", run_dir, "--json").stdout)["attempts"] == 2, "there is no second attempt")


def test_a_paused_run_takes_commands_and_goes_on(hybrid: Hybrid, live: Live) -> None:
    run_dir, _ = live
    assert _told(hybrid, run_dir, "pause", "--wait")[0] == 0
    listed = json.loads(hybrid("runs", run_dir.parent, "--json").stdout)
    assert [run["state"] for run in listed] == ["paused"]
    assert _told(hybrid, run_dir, "set-threshold", "divergence_threshold", "2.5", "--wait")[0] == 0
    assert _told(hybrid, run_dir, "resume", "--wait")[0] == 0


def test_stop_ends_the_run_and_a_finished_run_refuses(hybrid: Hybrid, live: Live) -> None:
    run_dir, process = live
    assert _told(hybrid, run_dir, "stop", "--yes", "--wait")[0] == 0
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped at step" in out
    code, said = _told(hybrid, run_dir, "force-full")
    assert (code, said["state"], said["refusal"]) == (3, "rejected", "run")
    end_agents(run_dir.parent)
    until(lambda: not _agent_alive(hybrid, run_dir), "the agent did not end")
    code, said = _told(hybrid, run_dir, "force-full")
    assert (code, said["state"], said["refusal"]) == (3, "rejected", "run")
    assert "stopped" in said["reason"]


def _agent_alive(hybrid: Hybrid, run_dir: Path) -> bool:
    return bool(json.loads(hybrid("runs", run_dir.parent, "--json").stdout)[0]["agent_alive"])


def test_a_trainer_that_does_not_answer_is_unknown_not_failed(hybrid: Hybrid, runs_dir: Path, start: Start) -> None:
    run_dir, process = train(start, runs_dir / "live", *NO_CHECKPOINTS)
    assert hybrid("send", run_dir, "annotate", "still here").returncode == 0
    process.send_signal(signal.SIGSTOP)
    code, said = _told(hybrid, run_dir, "force-full", "--ttl", 3600)
    assert code == 4
    assert said["state"] == "accepted"
    process.send_signal(signal.SIGCONT)
    until(
        lambda: (
            [
                c["state"]
                for c in json.loads(hybrid("report", run_dir, "--json").stdout)["commands"]
                if c["command_id"] == said["command_id"]
            ]
            == ["applied"]
        ),
        "the command was not applied after all",
    )


def test_a_command_that_expires_is_not_applied(hybrid: Hybrid, runs_dir: Path, start: Start) -> None:
    run_dir, process = train(start, runs_dir / "live", *NO_CHECKPOINTS)
    assert hybrid("send", run_dir, "annotate", "still here").returncode == 0
    process.send_signal(signal.SIGSTOP)
    said = hybrid("send", run_dir, "force-full", "--ttl", "1", "--json")
    process.send_signal(signal.SIGCONT)
    assert said.returncode in (3, 4), said.stdout
    until(
        lambda: json.loads(hybrid("report", run_dir, "--json").stdout)["commands"][-1]["state"] == "expired",
        "it did not expire",
    )


def test_a_command_waits_for_its_step_and_happens_once_under_one_id(hybrid: Hybrid, live: Live) -> None:
    run_dir, _ = live
    code, now = _told(hybrid, run_dir, "lock", "--wait")
    assert code == 0
    later = now["step"] + 1500
    words = (run_dir, "annotate", "once", "--at", later, "--id", "an-id-of-mine", "--ttl", "250", "--wait")
    code, said = _told(hybrid, *words)
    assert (code, said["state"], said["command_id"]) == (0, "applied", "an-id-of-mine")
    assert said["step"] == later - 1
    code, again = _told(hybrid, *words)
    assert (code, again["step"]) == (0, said["step"]), "the same command, not a second one"
    code, other = _told(hybrid, run_dir, "annotate", "another", "--id", "an-id-of-mine")
    assert code == 3 and other["refusal"] == "conflict"
    short = hybrid("send", run_dir, "pause", "--id", "short")
    assert short.returncode == 2 and "8 to 64" in short.stderr


def test_words_are_checked_before_anything_is_sent(hybrid: Hybrid, live: Live) -> None:
    said = hybrid("send", live[0], "forcefull")
    assert said.returncode == 2
    assert said.stderr.startswith("hybrid: forcefull: no such command; one of force-full,")


def test_no_run_no_command(hybrid: Hybrid, tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "none"):
        said = hybrid("send", where, "pause")
        assert said.returncode == 2
        assert str(where) in said.stderr and len(said.stderr.strip().splitlines()) == 1
