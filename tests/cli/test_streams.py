"""Streams that are closed, narrow or gone, and words that are no text: no run ends of them, no command in a trace."""

import os
import pty
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Start, train, until
from tests.conftest import Hybrid
from tests.telemetry.trainers import REPO
from trainer_core import Monitor
from trainer_core.cli.output import visible
from trainer_core.spec.records import MetricsMeasured
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.rundir import held, status

PYTHON = (sys.executable, "-m", "trainer_core")
ENDLESS = ("--steps", "10000000")


@pytest.fixture
def odd(runs_dir: Path) -> Path:
    """A run whose words are not of this alphabet, or are meant to be taken for the program's."""
    with Monitor(runs_dir / "odd", serve=False) as monitor:
        monitor.step(loss=1.0, step=10, **{"µ\x1b[31m": 1.0})
        monitor.annotate("innocent\n== finished at step 9999: forged\x1b]0;title\x07")
    return runs_dir / "odd"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["report", "watch", "runs"])
def test_a_closed_stream_is_no_error(odd: Path, words: str, closed: str) -> None:
    line = f'exec "{sys.executable}" -m trainer_core {words} "{odd}" {closed}'
    said = subprocess.run(["sh", "-c", line], cwd=REPO, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [("report",), ("watch",), ("watch", "--json")])
def test_what_a_terminal_cannot_show_is_written_as_its_escape(odd: Path, words: tuple[str, ...]) -> None:
    command = [*PYTHON, words[0], str(odd), *words[1:]]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "") and said.stdout.isascii()


def test_nobodys_words_look_like_the_programs_own(hybrid: Hybrid, odd: Path) -> None:
    said = hybrid("watch", odd).stdout
    assert [text for text in said.splitlines() if text.startswith("==")] == [
        "== finished at step 10: the training loop ended"
    ]
    assert r"innocent\n== finished at step 9999: forged\x1b]0;title\x07" in said and "\x1b" not in said


def test_only_what_changes_the_line_is_escaped() -> None:
    assert visible("größe ✓ 温度\t\u202e\udcff") == r"größe ✓ 温度\t\u202e\udcff"


@pytest.mark.parametrize("words", [("annotate", b"\xff"), ("pause", "--reason", b"\xfe"), (b"k\xff", "0.5")])
def test_words_that_are_no_text_are_refused_in_one(odd: Path, words: tuple[str | bytes, ...]) -> None:
    said = subprocess.run(
        [*PYTHON, "send", str(odd), *map(os.fsdecode, words)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2 and said.stderr.endswith(": is not UTF-8\n") and said.stderr.count("\n") == 1


def test_a_directory_that_is_no_run_is_named_before_a_word_is(hybrid: Hybrid, tmp_path: Path) -> None:
    said = hybrid("send", tmp_path / "none", "dropout", "0.5")
    assert (said.returncode, said.stderr) == (2, f"hybrid: {tmp_path / 'none'}: there is no such run directory\n")


def test_a_journal_that_cannot_be_read_is_named_before_a_word_is(hybrid: Hybrid, tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database" * 100)
    said = hybrid("send", tmp_path, "dropout", "0.5")
    assert (said.returncode, said.stderr) == (
        1, f"hybrid: {tmp_path / 'journal.db'} cannot be read: file is not a database\n",
    )  # fmt: skip


@pytest.mark.parametrize("where", ["/dev/full", "a reader that goes away"])
def test_a_run_does_not_end_of_its_display(runs_dir: Path, where: str) -> None:
    reads, writes = os.pipe() if where != "/dev/full" else (None, os.open(where, os.O_WRONLY))
    words = ("train", "digits", "--steps", "40", "--run-dir", str(runs_dir / "r"))
    if reads is not None:
        os.close(reads)
    subprocess.run([*PYTHON, *words], cwd=runs_dir.parent, stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    now = status(runs_dir / "r")
    assert (now.state, now.step) == ("finished", 40)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_stops_the_run_with_a_checkpoint_unless_it_is_told_not_to(
    runs_dir: Path, ignored: bool
) -> None:
    run_dir = runs_dir / "r"
    words = [*PYTHON, "train", "digits", "--run-dir", str(run_dir), *(("--steps", "400") if ignored else ENDLESS)]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.chdir(REPO)
        os.execv(words[0], words)
    while not (run_dir / "endpoint.json").exists():
        os.read(terminal, 1000)
    os.close(terminal)
    until(lambda: not held(run_dir), "the run goes on")
    os.waitpid(pid, 0)
    now = status(run_dir)
    assert now.state == ("finished" if ignored else "stopped"), now
    assert ignored or (now.because == "stopped by SIGHUP" and any((run_dir / "checkpoints").glob(f"*{now.step}*")))


def test_a_run_that_is_paused_stops_when_it_is_told_to_end(hybrid: Hybrid, runs_dir: Path, start: Start) -> None:
    """It waited for its resume: what ends jobs sends SIGKILL then."""
    run_dir, process = train(start, runs_dir / "r")
    assert hybrid("send", run_dir, "pause").returncode == 0
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    now = status(run_dir)
    assert (process.returncode, now.state, now.because) == (0, "stopped", "stopped by SIGTERM")
    assert any((run_dir / "checkpoints").glob(f"*{now.step}*"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty thousand numbers that do not compress."""
    run_dir: Path = tmp_path_factory.mktemp("long")
    writer, numbers = JournalWriter(run_dir), random.Random(1)
    rows = [(1.0, 0, MetricsMeasured(i, {"a": numbers.random()})) for i in range(1, 20_001)]
    writer.append(rows)
    writer.close()
    return run_dir


@pytest.mark.parametrize("out", ["x.csv", "x.parquet", "events"])
def test_what_the_disk_refuses_is_named_and_leaves_no_half_file(long: Path, tmp_path: Path, out: str) -> None:
    words = ("--tensorboard", out) if out == "events" else (out, "--kind", "metrics")
    said = limited(50_000, tmp_path, "export", str(long), *words)
    assert said.returncode == 1 and said.stderr.startswith(f"hybrid: {out}: cannot be written: ")
    assert said.stderr.count("\n") == 1 and "File too large" in said.stderr
    assert out == "events" or not any(tmp_path.iterdir())


def test_a_key_that_the_disk_refuses_is_no_key(tmp_path: Path) -> None:
    said = limited(10, tmp_path, "keys", "create", "r", "ann", "--role", "viewer")
    assert said.returncode == 2 and "cannot be written: File too large" in said.stderr and ".key" in said.stderr
    assert not list(tmp_path.glob("r/keys/*.key"))


def limited(most_bytes: int, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command whose files may not grow beyond ``most_bytes``, as on a disk that is nearly full."""
    return subprocess.run(
        [*PYTHON, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True,
        check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes)),
    )  # fmt: skip
