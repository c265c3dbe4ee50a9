"""The trainer's handle on its agent: starts it by exec, starts it again when it dies, lets it go. Opens no socket.

A missing or dying agent never shows in training: the journal is complete without it. That nobody can steer is an alert.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from trainer_core.spec.errors import UserError
from trainer_core.spec.records import Record
from trainer_core.telemetry.keys import KeyFileError, listed
from trainer_core.telemetry.listening import place
from trainer_core.telemetry.notice import Notice

LOG = "agent.log"
ACCESS = "access"
"""The alert rule that says that nobody elsewhere is let in any more."""
_LOOK_S, _FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 1.0, 60.0
_SETTLED_S = 5.0
"""An agent that has lived so long has started."""
_PATIENCE = 2
"""Starts in a row that may fail before it is an alert."""


class AgentProcess:
    """A watched child process. ``queued`` is asked once a second and passed on to the heartbeat.

    ``say`` is called by the watching thread with alerts about the agent; ``step`` is asked for the present step.
    """

    def __init__(
        self,
        run_dir: Path,
        queued: Callable[[], int] | None,
        listen: str | None = None,
        say: Callable[[Record], None] = lambda record: None,
        step: Callable[[], int] = lambda: 0,
    ) -> None:
        self._run_dir, self._queued, self._listen = Path(run_dir), queued, listen
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self.restarts = 0
        self._elsewhere = listen is not None and _is_elsewhere(listen)
        self._failures, self._started = 0, 0.0
        self._backoff = _FIRST_BACKOFF_S
        self._start_notice, self._access_notice = Notice("agent", say, step), Notice(ACCESS, say, step)
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
        self._started = time.monotonic()
        try:
            with (self._run_dir / LOG).open("ab") as log:
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
        while not self._ending.wait(_LOOK_S):
            self._access_notice.hold(self._nobody_is_let_in())
            if self._process is not None and self._process.poll() is None:
                if time.monotonic() - self._started > _SETTLED_S:
                    self._failures, self._backoff = 0, _FIRST_BACKOFF_S
                    self._start_notice.hold("")
                self._tell()
                continue
            self._failures += self._process is None or self._process.returncode != 0
            if self._failures > _PATIENCE:
                self._start_notice.hold(
                    f"the run's agent does not start, so nobody can steer: {_last_line(self._run_dir / LOG)}"
                )
            if self._ending.wait(self._backoff):
                return
            self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF_S)
            self.restarts += 1
            self._start()

    def _nobody_is_let_in(self) -> str:
        """Why nobody on another machine can watch or steer, although that was asked for; empty when somebody can."""
        try:
            if not self._elsewhere or listed(self._run_dir):
                return ""
        except KeyFileError as error:
            return str(error)
        return (
            f"--listen {self._listen}: every named key was revoked, so nobody on another machine can watch or "
            f"steer; to let somebody in: hybrid keys create {quote(str(self._run_dir))} NAME --role viewer"
        )

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


def start_agent(
    run_dir: Path,
    *,
    queued: Callable[[], int] | None = None,
    listen: str | None = None,
    say: Callable[[Record], None] = lambda record: None,
    step: Callable[[], int] = lambda: 0,
) -> AgentProcess:
    """Start the agent of a run; call it before CUDA starts. Never raises: training goes on without an agent.

    ``listen``: HOST[:PORT] that other machines may call (``listening.check`` says beforehand whether they may).
    ``say``: called by another thread with an alert when nobody can steer, or nobody elsewhere is let in any more.
    """
    return AgentProcess(run_dir, queued, listen, say, step)


def _is_elsewhere(listen: str) -> bool:
    """Whether other machines are meant; a name that nobody knows any more is one of those."""
    try:
        return place(listen, "--listen").remote
    except UserError:
        return True


def _last_line(log: Path) -> str:
    """What an agent said last."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            said = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"{log}: {error.strerror}"
    return said[-1] if said else f"{log} says nothing"
