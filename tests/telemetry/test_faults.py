"""Disks that are full or slow, children that fork, rotten rows: training goes on and the journal stays whole."""

import fcntl
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.telemetry.trainers import REPO, TrainerProcess
from tests.telemetry.waiting import until
from trainer_core.spec.commands import AcceptedCommand, CommandRequest, CommandState, Refusal, SetThreshold
from trainer_core.spec.records import AlertRaised, CommandChanged, StepRecord
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import CommandsWriter
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import RUN_LOCK, RunInUse, RunLock, claim, held, network_disk, status_from

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.telemetry.examples import step_record
from trainer_core.telemetry import journal
from trainer_core.telemetry.reporter import Reporter

journal._CHECKPOINT_EVERY = int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail, as on a full disk
reporter = Reporter(Path(sys.argv[1]))
reporter.report(step_record(1), 0)
assert reporter.flush(10)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
for step in range(2, 2001):
    reporter.report(step_record(step), 0)
    if step % 50 == 0 and reporter.failures == 0:
        reporter.flush(0.5)
assert not reporter.flush(1.0) and reporter.failures > 0, "the disk is full"
print(reporter.next_seq - 1, flush=True)
if sys.argv[2] == "room again":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert reporter.flush(20)
print(reporter.close(timeout=6.0), reporter.lost, flush=True)
"""
SLOW_DISK = """
import sys
from pathlib import Path
from tests.telemetry.examples import step_record
from trainer_core.telemetry.reporter import Reporter

reporter = Reporter(Path(sys.argv[1]), capacity=500)
for step in range(1, 3001):
    reporter.report(step_record(step), 0)
written = reporter.next_seq - 1
assert reporter.flush(20)
print(written, reporter.lost, reporter.close(timeout=6.0), flush=True)
"""


def python(words: str, *arguments: object, **environment: str) -> list[str]:
    """What a program printed, in words; it must have ended well."""
    done = subprocess.run(
        [sys.executable, "-c", words, *map(str, arguments)], cwd=REPO, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("later", "checkpoint_every"), [("room again", 200), ("room again", 1), ("room again", 3), ("full for ever", 200)]
)
def test_a_full_disk_never_reaches_the_caller_and_loses_or_doubles_nothing(
    run_dir: Path, later: str, checkpoint_every: int
) -> None:
    before, closed, lost = python(FULL_DISK, run_dir, later, checkpoint_every)
    steps = [row.record.step for row in JournalReader(run_dir).rows(limit=10**6) if isinstance(row.record, StepRecord)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= int(before)
    if later == "room again":
        assert (closed, lost, len(steps)) == ("True", "0", 2000)
    else:
        assert closed == "False" and len(steps) < 2000
    writer = JournalWriter(run_dir)
    assert writer.set_aside is None and writer.next_seq == len(steps) + 1
    writer.close()


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from trainer_core.telemetry.journal import JournalError, JournalWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    JournalWriter(Path(sys.argv[1]))
except JournalError as error:
    print(error)
"""


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_does_not_begin_on_a_full_disk_and_a_good_journal_is_not_taken_for_a_corrupt_one(
    run_dir: Path, resumed: bool
) -> None:
    if resumed:
        with TrainerProcess(run_dir, serves=False) as trainer:
            trainer.steps(3)
            trainer.kill()
        (run_dir / "journal.db-shm").unlink(missing_ok=True)
    said = " ".join(python(NO_ROOM, run_dir))
    assert "journal.db cannot be written" in said
    assert not [path.name for path in run_dir.iterdir() if "corrupt" in path.name]
    if resumed:
        assert len(JournalReader(run_dir).rows()) == 5


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to slow fsync down")
def test_a_slow_fsync_holds_no_report_up_and_what_is_dropped_is_told(run_dir: Path, tmp_path: Path) -> None:
    shim = tmp_path / "slow.so"
    words = ["cc", "-shared", "-fPIC", "-o", str(shim), str(Path(__file__).with_name("slow_fsync.c")), "-ldl"]
    subprocess.run(words, check=True)
    written, lost, closed = python(SLOW_DISK, run_dir, LD_PRELOAD=str(shim), SLOW_FSYNC_MS="200")
    records = [row.record for row in JournalReader(run_dir).rows(limit=10**6)]
    steps = [record.step for record in records if isinstance(record, StepRecord)]
    assert int(written) < 3000, "the reports did not wait for the disk"
    assert closed == "True" and steps[-1] == 3000 and int(lost) == 3000 - len(steps) > 0
    assert sum(getattr(record, "count", 0) for record in records if not isinstance(record, StepRecord)) == int(lost)


def test_a_command_that_cannot_be_read_holds_no_later_one_up_and_an_alert_names_it(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    writer = CommandsWriter(run_dir)
    for number in range(3):
        request = CommandRequest(f"command-{number}", SetThreshold("confidence_threshold", 0.5))
        if number != 1:
            writer.add(AcceptedCommand(request, "operator", 1.0), CommandState.ACCEPTED, None, "")
            continue
        with sqlite3.connect(run_dir / "commands.db") as db:  # at once: the reporter reads as it comes
            bad = ("command-1", "operator", 1.0, msgspec.msgpack.encode({"what": "is this"}), "accepted", None, "")
            db.execute(
                "INSERT INTO commands(command_id, actor, received_at, body, state, refusal, detail) "
                "VALUES(?, ?, ?, ?, ?, ?, ?)",
                bad,
            )
    writer.close()
    taken: list[str] = []
    until(lambda: taken.extend(c.request.command_id for c in reporter.take_commands()) or len(taken) == 2)
    reporter.close()
    assert taken == ["command-0", "command-2"]
    records = [row.record for row in JournalReader(run_dir).rows()]
    assert [r.command_id for r in records if isinstance(r, CommandChanged)] == ["command-0", "command-2"]
    (alert,) = (record for record in records if isinstance(record, AlertRaised))
    assert "command 2 of commands.db" in alert.message


def test_a_request_too_long_for_any_agent_is_refused_in_words_before_it_is_sent(run_dir: Path) -> None:
    request = CommandRequest("command-1", SetThreshold("confidence_threshold", 0.5), reason="x" * 70_000)
    with Client(run_dir) as client:
        answer = client.send(request)
    assert (answer.state, answer.refusal) == (CommandState.REJECTED, Refusal.SCHEMA)
    assert "at most 65536 bytes; this one has 70" in answer.detail


def test_a_stopped_trainer_has_stalled_and_works_again_when_it_goes_on(run_dir: Path) -> None:
    with TrainerProcess(run_dir, serves=False) as trainer:
        trainer.steps(3)
        os.kill(trainer.pid, signal.SIGSTOP)
        reader = JournalReader(run_dir)
        then = reader.last_rows(1)[0].time
        for hours in (1, 1000):  # a machine that slept is the same: never a crash
            status = status_from(reader, held(run_dir), False, then + 3600 * hours)
            assert status.state == "stalled" and f"no step for {3600 * hours} s" in status.because
        os.kill(trainer.pid, signal.SIGCONT)
        trainer.steps(1)
        assert status_from(reader, held(run_dir), False, reader.last_rows(1)[0].time + 1).state == "working"
        assert status_from(reader, held(run_dir), False, then - 3600).state == "working", "a clock that was set back"


def test_another_process_with_the_dead_trainers_number_does_not_keep_it_alive(run_dir: Path) -> None:
    with TrainerProcess(run_dir, serves=False) as trainer:
        trainer.steps(3)
        trainer.kill()
    (run_dir / "run.lock").write_text(f'{{"pid": {os.getpid()}, "started": 1.0, "nonce": "x"}}')
    assert status_from(JournalReader(run_dir), held(run_dir), False, 0.0).state == "crashed"


def test_a_forked_child_that_outlives_its_trainer_does_not_hold_the_run(run_dir: Path) -> None:
    lock = claim(run_dir)
    parent, child = multiprocessing.get_context("fork").Pipe()
    pid = os.fork()
    if pid == 0:
        parent.close()
        child.poll(20)
        os._exit(0)
    child.close()
    try:
        with pytest.raises(RunInUse):
            claim(run_dir, wait_s=0.0)
        lock.close()
        claim(run_dir, wait_s=0.0).close()
    finally:
        parent.close()
        assert os.waitpid(pid, 0)[1] == 0


def test_letting_go_of_a_run_frees_it_though_a_child_still_shares_the_lock(run_dir: Path) -> None:
    """As in the instant after a fork, before the child has closed its copy."""
    with (run_dir / RUN_LOCK).open("a+", encoding="utf-8") as file:
        lock = RunLock(run_dir / "run.lock", file, "nonce")
        fcntl.flock(file, fcntl.LOCK_EX)
        copy = os.dup(file.fileno())
        lock.close()
        claim(run_dir, wait_s=0.0).close()
        os.close(copy)


LOADER = """
import sys
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from tests.telemetry.examples import step_record
from trainer_core.telemetry.reporter import Reporter

REPORTER = None

class Telling(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i):
        if REPORTER is not None:  # what a fork inherits; a spawned worker has none
            REPORTER.report(step_record(666), 0)
            REPORTER.flush(0.1)
        return torch.tensor(i)

if __name__ == "__main__":
    REPORTER = Reporter(Path(sys.argv[1]))
    for epoch in range(int(sys.argv[3])):
        loader = DataLoader(Telling(), num_workers=int(sys.argv[3]), multiprocessing_context=sys.argv[2])
        for i, _ in enumerate(loader):
            REPORTER.report(step_record(8 * epoch + i + 1), 0)
    print(REPORTER.close(timeout=6.0))
"""


@pytest.mark.parametrize(("how", "workers"), [("fork", 2), ("spawn", 1)])
def test_data_loader_workers_neither_write_nor_hang(run_dir: Path, tmp_path: Path, how: str, workers: int) -> None:
    program = tmp_path / "loader.py"
    program.write_text(LOADER)
    words = [sys.executable, str(program), str(run_dir), how, str(workers)]
    done = subprocess.run(
        words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.stdout.split(), done.returncode) == (["True"], 0), done.stderr
    rows = JournalReader(run_dir).rows()
    assert [row.seq for row in rows] == list(range(1, 8 * workers + 1))
    assert [row.record.step for row in rows] == list(range(1, 8 * workers + 1))


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local ext4 rw 0 0
C:\\ /mnt/c 9p rw 0 0
me@there:/data /mnt/far\\040away fuse.sshfs rw 0 0
tmpfs /homework tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/data/runs/a", None),
        ("/home/me/runs/a", "nfs4"),
        ("/home/me/local/runs/a", None),
        ("/homework/a", None),
        ("/mnt/c/runs", "9p"),
        ("/mnt/far away/runs", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_known_by_the_mount_a_folder_is_on(folder: str, kind: str | None) -> None:
    assert network_disk(Path(folder), MOUNTS) == kind
