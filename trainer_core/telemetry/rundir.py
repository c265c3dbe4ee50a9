"""A run directory from outside: who holds it, how the run is doing, which runs there are. Opens no socket.

Three lights: the trainer holds ``run.lock``, the agent holds ``agent.lock``, and the journal's newest step has an age.
"""

import fcntl
import json
import os
import secrets
import statistics
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from trainer_core.spec.errors import RunError, WrongRun
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, RunStarted, RunState, StepRecord
from trainer_core.telemetry.journal import FILE, JournalError, JournalReader
from trainer_core.telemetry.opening import identity

RUN_LOCK, AGENT_LOCK = "run.lock", "agent.lock"
_RETRY_S, _STALL_S, _START_S, _STALL_STEPS = 1.0, 10.0, 120.0, 20.0
_FINAL = ("finished", "stopped", "failed")
_NETWORK = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "davfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.davfs2",
    "fuse.juicefs", "fuse.mount-s3", "fuse.blobfuse2", "vboxsf", "prl_fs",
)  # fmt: skip


def dated(prefix: str) -> str:
    """A name for a new run: when it began, and four letters that tell apart what began in the same second."""
    return f"{prefix}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


class RunInUse(RunError):
    """Another process holds the run directory."""


class RunLock:
    """An flock on a file whose content says who holds it; released when closed or when the process dies."""

    def __init__(self, path: Path, file: IO[str], nonce: str) -> None:
        self._path, self._file = path, file
        self._folder = identity(path.parent)
        self.nonce = nonce

    def restored(self) -> bool | None:
        """Look after the file: None when it is in its place, or moved with its whole directory.

        One that somebody removed is made and locked again, or the run would look as if nobody had it, and be another's
        to claim: True when that was done, False when another process has claimed it meanwhile.
        """
        held = os.fstat(self._file.fileno())
        if identity(self._path.parent) != self._folder or identity(self._path) == (held.st_dev, held.st_ino):
            return None
        try:
            handle = self._path.open("a+", encoding="utf-8")
        except OSError:
            return None  # a disk that takes nothing now: looked at again
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        _signed(handle, self.nonce)
        old, self._file = self._file, handle
        old.close()
        return True

    def close(self) -> None:
        """Let go at once, also of the copy that a child forked an instant ago has yet to close."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()


class RunStatus(msgspec.Struct, frozen=True):
    """How a run is doing, and why one says so."""

    state: str
    """working, stalled, crashed, paused, finished, stopped or failed."""
    because: str
    step: int = 0
    total_steps: int | None = None
    phase: Phase | None = None
    age_s: float | None = None
    """Seconds since the newest step record; None before the first."""
    agent_alive: bool = False
    trainer_alive: bool = False


class RunSummary(msgspec.Struct, frozen=True):
    """One line of a run list. ``error`` is the sentence when the journal cannot be read."""

    name: str
    path: Path
    status: RunStatus
    task: str = ""
    started: float = 0.0
    error: str = ""


def claim(run_dir: Path, file: str = RUN_LOCK, wait_s: float = _RETRY_S) -> RunLock:
    """Take a run directory for this process. Raises RunInUse when another has it.

    Asking who holds a lock takes it for an instant, so a refusal is only believed after ``wait_s``.
    """
    path = Path(run_dir) / file
    _refuse_network_disk(Path(run_dir))
    try:
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be opened: {error.strerror}") from None
    os.set_inheritable(handle.fileno(), False)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() >= deadline:
                holder = holder_of(Path(run_dir), file)
                handle.close()
                what = "in use" if file == RUN_LOCK else "already served"
                raise RunInUse(f"{run_dir} is {what} by process {holder.get('pid', '?')}; it was left alone") from None
            time.sleep(0.02)
    nonce = secrets.token_hex(8)
    _signed(handle, nonce)
    return RunLock(path, handle, nonce)


def _signed(handle: IO[str], nonce: str) -> None:
    """Say in a locked file whose it is, and let go of it in children."""
    handle.seek(0)
    handle.truncate()
    handle.write(json.dumps({"pid": os.getpid(), "started": time.time(), "nonce": nonce}))
    handle.flush()
    _let_go_in_children(handle)


def held(run_dir: Path, file: str = RUN_LOCK) -> bool:
    """Whether a living process holds the lock."""
    try:
        handle = (Path(run_dir) / file).open("r", encoding="utf-8")
    except OSError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(handle, fcntl.LOCK_UN)
        return False


def holder_of(run_dir: Path, file: str = RUN_LOCK) -> dict[str, object]:
    """pid, start time and nonce of the last holder; empty when nobody ever held it."""
    try:
        content = json.loads((Path(run_dir) / file).read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def status(run_dir: Path) -> RunStatus:
    """How the run in ``run_dir`` is doing. Raises JournalError when it is no run that this version reads."""
    trainer_alive = held(run_dir)  # before the journal: a trainer writes its last word before it lets go
    reader = JournalReader(run_dir)
    try:
        return status_from(reader, trainer_alive, held(run_dir, AGENT_LOCK), time.time())
    finally:
        reader.close()


def status_from(reader: JournalReader, trainer_alive: bool, agent_alive: bool, now: float) -> RunStatus:
    """As ``status``, from an open reader and a given clock."""
    starts = reader.events("run-started", newest=1)
    words = reader.events("run-state", newest=1)
    phases = reader.events("phase", newest=1)
    steps = reader.last_steps(20)
    started = starts[-1].record if starts else None
    total = started.total_steps if isinstance(started, RunStarted) else None
    word = words[-1].record if words and words[-1].seq > (starts[-1].seq if starts else 0) else None
    step = steps[-1].record.step if steps else 0
    phase = None
    if steps and isinstance(steps[-1].record, StepRecord):
        phase = steps[-1].record.phase
    if phases and isinstance(phases[-1].record, PhaseChanged) and (not steps or phases[-1].seq > steps[-1].seq):
        phase = phases[-1].record.to_phase
    if isinstance(started, RunStarted) and started.own_loop:
        phase = None  # its steps are recorded as FULL; it has no phases
    age = max(0.0, now - steps[-1].time) if steps else None
    fresh = [row.record for row in steps if row.seq > (starts[-1].seq if starts else 0)]  # of the present process
    state, because = _judged(word, trainer_alive, bool(fresh), step)
    if state == "working":
        since = max([r.time for r in (*starts, *words, *steps[-1:])], default=now)
        state, because = _progressing(now - since, fresh, because)
    return RunStatus(state, because, step, total, phase, age, agent_alive, trainer_alive)


def _judged(word: object, trainer_alive: bool, stepped: bool, step: int) -> tuple[str, str]:
    if isinstance(word, RunState) and word.state in _FINAL:
        return word.state, word.because
    if not trainer_alive:
        return "crashed", f"the trainer is gone and never said how the run ended; the last step was {step}"
    if isinstance(word, RunState) and word.state == "paused":
        return "paused", word.because
    return "working", "steps are coming" if stepped else "starting"


def _progressing(quiet_s: float, steps: Sequence[object], because: str) -> tuple[str, str]:
    times = [s.step_seconds for s in steps if isinstance(s, StepRecord) and s.step_seconds is not None]
    limit = max(_STALL_S, _STALL_STEPS * statistics.median(times)) if times else _START_S
    if quiet_s > limit:
        return "stalled", f"no step for {quiet_s:.0f} s; {limit:.0f} s is the limit at this run's pace"
    return "working", because


def find_runs(runs_dir: Path) -> list[RunSummary]:
    """Every run directly under ``runs_dir`` (or ``runs_dir`` itself), newest first."""
    return newest_first(summary(path) for path in run_dirs(runs_dir))


def newest_first(found: Iterable[RunSummary]) -> list[RunSummary]:
    """The order of run lists."""
    return sorted(found, key=lambda run: (run.started, run.name), reverse=True)


def run_dirs(runs_dir: Path) -> list[Path]:
    """Directories directly under ``runs_dir`` that have a journal; ``runs_dir`` alone where it has one itself."""
    runs_dir = Path(runs_dir)
    if (runs_dir / FILE).is_file():
        return [runs_dir]
    return [path.parent for path in runs_dir.glob(f"*/{FILE}")] if runs_dir.is_dir() else []


def summary(path: Path) -> RunSummary:
    """The line of one run directory; what is wrong with its journal is said in it."""
    try:
        reader = JournalReader(path)
        try:
            alive = held(path)
            how = status_from(reader, alive, held(path, AGENT_LOCK), time.time())
            starts = reader.events("run-started", newest=1)
            record = starts[-1].record if starts else None
            task = record.task if isinstance(record, RunStarted) else ""
            return RunSummary(path.name, path, how, task, starts[-1].time if starts else 0.0)
        finally:
            reader.close()
    except JournalError as error:
        return RunSummary(path.name, path, RunStatus("unreadable", str(error)), error=str(error))


def filesystem(folder: Path, mounts: str) -> str:
    """The kind of file system that a real path is on, by the lines of /proc/mounts; empty where they do not say."""
    here, best, found = str(folder), "", ""
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, kind
    return found


def network_disk(folder: Path, mounts: str) -> str | None:
    """The kind of network file system that ``folder`` is on, by the lines of /proc/mounts; None for a local disk."""
    found = filesystem(folder, mounts)
    return found if found in _NETWORK else None


def _refuse_network_disk(run_dir: Path) -> None:
    """SQLite's write-ahead log and flock are not safe on network file systems."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    except OSError:
        return
    kind = network_disk(run_dir.resolve(), mounts)
    if kind is not None:
        raise WrongRun(
            f"{run_dir} is on a network file system ({kind}), where locks and the journal are not safe: "
            "choose a run directory on a local disk, and copy it when the run has ended"
        )


def _let_go_in_children(handle: IO[str]) -> None:
    """A forked child shares its parent's flock: one that outlives the trainer would go on holding the run."""
    mine = weakref.ref(handle)

    def close() -> None:
        held_here = mine()
        if held_here is not None:
            held_here.close()

    os.register_at_fork(after_in_child=close)
