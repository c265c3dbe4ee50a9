"""Trainers without a model: one in this process, one as a process of its own that can be killed.

Both are real users of telemetry (claim, reporter, agent) and obey commands as the engine's inbox does.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.telemetry.examples import step_record
from trainer_core.spec.commands import AcceptedCommand, CommandState, Refusal, SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, Record, RunStarted, RunState
from trainer_core.telemetry.agent_process import start_agent
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import claim
from trainer_core.telemetry.segments import KEPT_ROWS, SEGMENT_ROWS

REPO = Path(__file__).parents[2]


class Trainer:
    """A trainer in this process. ``obeys``: a thread applies commands as they come."""

    def __init__(
        self,
        run_dir: Path,
        *,
        serves: bool = True,
        obeys: bool = True,
        segments: tuple[int, int] | None = None,
        listen: str | None = None,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir
        self.step, self.state_rev, self.taken = 0, 0, list[AcceptedCommand]()
        self._lock = claim(run_dir)
        rows, kept = segments or (SEGMENT_ROWS, KEPT_ROWS)
        self.reporter = Reporter(run_dir, segment_rows=rows, kept_rows=kept)
        self.say(RunStarted(0, "r", "test", {}, ("a", "b"), 2, None, "cpu", {}, 1), RunState(0, "running", "begins"))
        self.agent = start_agent(run_dir, listen=listen, say=self.say, step=lambda: self.step) if serves else None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._obey, name="obeying trainer") if obeys else None
        if self._thread is not None:
            self._thread.start()

    def say(self, *records: Record) -> None:
        for record in records:
            self.reporter.report(record, 0)

    def steps(self, count: int) -> None:
        """Take ``count`` steps and wait until they are committed."""
        for _ in range(count):
            self.step += 1
            self.say(step_record(self.step))
        assert self.reporter.flush(10)

    def obey(self) -> None:
        """Take what was accepted and apply it, as between two steps."""
        for accepted in self.reporter.take_commands():
            self.taken.append(accepted)
            self._apply(accepted)

    def end(self, state: str = "finished") -> None:
        """Write how the run ended, and go."""
        self.say(RunState(self.step, state, f"{state} by the test"))
        self.close()

    def close(self) -> None:
        """Go without a word about the state, as a crash does."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self.reporter.close()
        if self.agent is not None:
            self.agent.close()
        self._lock.close()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _obey(self) -> None:
        while not self._ending.wait(0.01):
            self.obey()

    def _apply(self, accepted: AcceptedCommand) -> None:
        request = accepted.request
        if time.time() > accepted.received_at + request.ttl_s:
            self._change(accepted, CommandState.EXPIRED, detail="too late")
        elif request.expect_state_rev not in (None, self.state_rev):
            self._change(accepted, CommandState.REJECTED, refusal=Refusal.CONFLICT, detail="the run has moved on")
        else:
            self._change(accepted, CommandState.APPLYING)
            self.state_rev += 1
            new = request.command.value if isinstance(request.command, SetThreshold) else "done"
            self._change(accepted, CommandState.APPLIED, before="0.85", after=f"{new}")

    def _change(
        self,
        accepted: AcceptedCommand,
        state: CommandState,
        *,
        before: str | None = None,
        after: str | None = None,
        refusal: Refusal | None = None,
        detail: str = "",
    ) -> None:
        request = accepted.request
        change = CommandChanged(
            self.step, Phase.FULL, request.command_id, request.command, state, accepted.actor, self.state_rev,
            before, after, refusal, detail, request.reason, request.on_behalf_of,
        )  # fmt: skip
        self.say(change)


class TrainerProcess:
    """``Trainer`` in a process that takes its orders line by line: ``steps N``, ``run``, ``end STATE``."""

    def __init__(self, run_dir: Path, *, serves: bool = True, segments: tuple[int, int] | None = None) -> None:
        self.run_dir = run_dir
        words = [sys.executable, "-m", "tests.telemetry.trainers", str(run_dir), *(["--serve"] if serves else [])]
        words += [f"--segments={segments[0]},{segments[1]}"] if segments else []
        self._process = subprocess.Popen(
            words, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid
        self._heard("ready")

    def steps(self, count: int) -> None:
        """Have it take ``count`` steps and wait until they are committed."""
        self._tell(f"steps {count}")
        self._heard("done")

    def run(self) -> None:
        """Have it step as fast as it can until it is killed."""
        self._tell("run")
        self._heard("running")

    def end(self, state: str = "finished") -> None:
        self._tell(f"end {state}")
        assert self._process.wait(20) == 0
        self._hang_up()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(20)
        self._hang_up()

    def __enter__(self) -> "TrainerProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.kill()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _heard(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def _hang_up(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def main(run_dir: Path, options: list[str]) -> None:
    """The other side of TrainerProcess."""
    sizes = [option.partition("=")[2].split(",") for option in options if option.startswith("--segments=")]
    segments = (int(sizes[0][0]), int(sizes[0][1])) if sizes else None
    trainer = Trainer(run_dir, serves="--serve" in options, segments=segments)
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["steps", count]:
                trainer.steps(int(count))
                print("done", flush=True)
            case ["run"]:
                print("running", flush=True)
                while True:
                    trainer.step += 1
                    trainer.say(step_record(trainer.step))
                    time.sleep(0.0005)
            case ["end", state]:
                trainer.end(state)
                return
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
