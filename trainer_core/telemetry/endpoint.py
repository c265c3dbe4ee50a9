"""endpoint.json: where a run's agent listens, for clients on the same machine. One writer, the agent. No sockets."""

import contextlib
import json
import os
from pathlib import Path

import msgspec

from trainer_core.spec.errors import RunError
from trainer_core.telemetry.codec import PROTOCOL
from trainer_core.telemetry.rundir import AGENT_LOCK, held

ENDPOINT = "endpoint.json"


class Endpoint(msgspec.Struct, frozen=True):
    """What the file says."""

    protocol: int
    news: str
    questions: str
    commands: str
    server_key: str
    journal_id: str
    epoch: str
    """One agent's sockets: another epoch means connecting anew."""
    pid: int
    started: float


def write_endpoint(run_dir: Path, endpoint: Endpoint) -> None:
    """The whole file, private, or none."""
    temporary = run_dir / f".{ENDPOINT}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(msgspec.to_builtins(endpoint), file)
    os.replace(temporary, run_dir / ENDPOINT)


def withdraw_endpoint(run_dir: Path, epoch: str) -> None:
    """Remove the file, if it is still the one of ``epoch``."""
    with contextlib.suppress(OSError):
        if says_epoch(run_dir, epoch):
            (run_dir / ENDPOINT).unlink()


def says_epoch(run_dir: Path, epoch: str) -> bool:
    """Whether the file is there, and is the one of ``epoch``."""
    try:
        return bool(json.loads((run_dir / ENDPOINT).read_text(encoding="utf-8"))["epoch"] == epoch)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_endpoint(run_dir: Path) -> Endpoint | None:
    """The living agent's endpoint; None when there is none or a stale file. Raises RunError for another protocol."""
    try:
        content = json.loads((Path(run_dir) / ENDPOINT).read_text(encoding="utf-8"))
        endpoint = msgspec.convert(content, Endpoint)
    except (OSError, ValueError, msgspec.ValidationError):
        return None
    if endpoint.protocol != PROTOCOL:
        raise RunError(f"{run_dir} is served by protocol version {endpoint.protocol}; this program speaks {PROTOCOL}")
    return endpoint if held(run_dir, AGENT_LOCK) else None
