"""How somebody goes on with a run that has ended: the command to type, or the call to write. Pure."""

import shlex
from pathlib import PurePath

from app.store import Snapshot
from trainer_core.spec.records import RunEnvironment, RunStarted


def command(snapshot: Snapshot, run: str) -> str | None:
    """What to type in a shell; None: no ``hybrid train`` began it."""
    started = snapshot.latest(RunStarted)
    task = _task(snapshot)
    if task is None:
        return None
    ranks = started.world_size if started is not None else 1
    words = ["hybrid"] if ranks == 1 else ["torchrun", f"--nproc-per-node={ranks}", "-m", "trainer_core"]
    return shlex.join([*words, "train", task, "--run-dir", run, "--resume"])


def call(snapshot: Snapshot, run: str) -> str:
    """What to write in the script that trained."""
    return f"{'Monitor' if snapshot.own_loop else 'HybridTrainer'}(..., run_dir={run!r}, resume=True)"


def _task(snapshot: Snapshot) -> str | None:
    """The word that ``hybrid train`` took: a task's own name is another one where it is ``module:function``."""
    started, began = snapshot.latest(RunStarted), snapshot.latest(RunEnvironment)
    if snapshot.own_loop or started is None:
        return None if snapshot.own_loop else "TASK"
    if began is None:
        return started.task
    line = [*began.command_line]
    at = next((n for n, word in enumerate(line) if word == "train" and n and _ours(line[n - 1])), None)
    if at is None:
        return None
    rest = line[at + 1 :]
    return started.task if started.task in rest else next((word for word in rest if ":" in word), started.task)


def _ours(word: str) -> bool:
    path = PurePath(word)
    return path.name in ("hybrid", "trainer_core") or path.parts[-2:] == ("trainer_core", "__main__.py")
