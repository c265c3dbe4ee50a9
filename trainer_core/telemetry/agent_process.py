"""The trainer's handle on its agent: starts it by exec, starts it again when it dies, lets it go. Opens no socket.

A missing or dying agent never shows in training: the journal is complete without it.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_LOOK_S, _FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 1.0, 60.0


class AgentProcess:
    """A watched child process. ``queued`` is asked once a second and passed on to the heartbeat."""

    def __init__(self, run_dir: Path, queued: Callable[[], int] | None, listen: str | None = None) -> None:
        self._run_dir, self._queued, self._listen = Path(run_dir), queued, listen
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self.restarts = 0
        self._start()
        self._thread = threading.Thread(target=self._watch, name="agent-watch", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the present agent; None when it could not be started."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        command = [sys.executable, "-m", "trainer_core.telemetry.agent", str(self._run_dir), "--child"]
        command += ["--listen", self._listen] if self._listen is not None else []
        # The child must find this package even when it is not installed and the working directory is elsewhere.
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        try:
            with (self._run_dir / "agent.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    close_fds=True,
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": path},
                )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        except OSError:
            self._process = None

    def _watch(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while not self._ending.wait(_LOOK_S):
            if self._process is not None and self._process.poll() is None:
                self._tell()
                continue
            if self._ending.wait(backoff):
                return
            backoff = min(2 * backoff, _LONGEST_BACKOFF_S)
            self.restarts += 1
            self._start()

    def _tell(self) -> None:
        if self._queued is None or self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"{self._queued()}\n".encode())
            self._process.stdin.flush()
        except (OSError, ValueError):
            return  # a full or broken pipe: the next look finds out why

    def close(self) -> None:
        """Let go: the pipe ends, and the agent lingers for those who still watch."""
        self._ending.set()
        self._thread.join(5.0)
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                return


def start_agent(run_dir: Path, *, queued: Callable[[], int] | None = None, listen: str | None = None) -> AgentProcess:
    """Start the agent of a run; call it before CUDA starts. Never raises: training goes on without an agent.

    ``listen``: HOST[:PORT] that other machines may call (``listening.check`` says beforehand whether they may).
    """
    return AgentProcess(run_dir, queued, listen)
