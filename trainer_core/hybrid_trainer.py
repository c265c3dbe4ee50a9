"""HybridTrainer: the Python API. Puts engine, checkpoints and telemetry together around a model of the user's own."""

import atexit
import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from trainer_core.engine.agreement import refuse_wrapped
from trainer_core.engine.batches import NO_MORE, until_one_ends
from trainer_core.engine.distributed import Ranks
from trainer_core.engine.engine import Engine
from trainer_core.engine.knobs import Knob
from trainer_core.engine.session import Session
from trainer_core.engine.shared_checkpoints import store
from trainer_core.engine.validating import Validate
from trainer_core.learning.loss import Batch, LossFn
from trainer_core.learning.predictors import Predictor
from trainer_core.resuming import History, Opened, open_run, unfinished_business
from trainer_core.spec.counts import steps_or_none
from trainer_core.spec.errors import LOOP_ENDED, CheckpointError, RunError, TrainingFailed, WrongRun, last_word
from trainer_core.spec.loading import ConfigLike, as_config, to_toml
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertResolved, Record, RunStarted, StepRecord
from trainer_core.starting import device_name, run_started
from trainer_core.surroundings import watch_system
from trainer_core.telemetry import baselines
from trainer_core.telemetry.agent_process import AgentProcess, start_agent
from trainer_core.telemetry.rundir import dated
from trainer_core.telemetry.system import SystemWatch
from trainer_core.telemetry.voice import Voice


class HybridTrainer:
    """Trains ``model`` by the hybrid predictive method, records everything under ``run_dir``, and obeys commands.

    ``loss_fn(model, batch)`` returns a scalar or per-sample losses (B,); a criterion such as ``nn.CrossEntropyLoss()``
    works too, with batches ``(inputs, targets)``. ``config`` is a Config, a mapping in the sections of the document, or
    the path of a TOML file; None keeps the optimizer's own learning rate, constant. ``validate()`` returns the held-out
    loss, or (loss, accuracy or None). ``run_dir`` must not hold a run unless ``resume`` is true. ``serve`` starts the
    agent that dashboards and ``hybrid send`` talk to. ``predictor`` is one of your own (``trainer_core.Predictor``)
    instead of the configured one. ``plain`` locks prediction from the start: a baseline. ``baseline`` names such a run
    for the report to compare this one with. In an initialised process group (torch.distributed) all ranks make one with
    the same arguments and call the same methods; each gives batches of its own, and rank 0 alone has the run directory
    (docs/distributed.md). ``listen``: HOST[:PORT] that other machines may call, with named keys (docs/security.md).

    Raises UserError (ConfigError, RunError, CheckpointError) with one sentence for input that cannot be used.
    Use it as a context manager, or close it: that writes how the run ended (the end of the program does it otherwise).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFn,
        config: ConfigLike = None,
        run_dir: str | Path | None = None,
        *,
        total_steps: int | None = None,
        validate: Validate | None = None,
        resume: bool = False,
        serve: bool = True,
        task: str = "custom",
        on_record: Callable[[Record, int], None] | None = None,
        predictor: Predictor | None = None,
        plain: bool = False,
        baseline: str | Path | None = None,
        listen: str | None = None,
    ) -> None:
        refuse_wrapped(model)
        self.config, total_steps = as_config(config), steps_or_none("total_steps", total_steps)
        self.run_dir = Path(run_dir) if run_dir is not None else Path("runs") / dated("run")
        self._opened: Opened | None = None
        # Whatever is wrong with what was given is found before anything is written.
        self._ranks = Ranks.joined(model, optimizer, self.config, {
            "total_steps": total_steps, "plain": plain, "resume": resume, "task": task,
        })  # fmt: skip
        self._voice = Voice(on_record if self._first else None)
        if self._ranks is not None:
            self._ranks.source = self._voice.take_commands
            self.run_dir = Path(self._as_first(lambda: str(self.run_dir)))
        self.engine = Engine(
            model, optimizer, loss_fn, self.config, self._voice.say, total_steps=total_steps, predictor=predictor,
            ranks=self._ranks,
        )  # fmt: skip
        self.engine.locked = self._plain = plain
        self._baseline: str | None = None
        self._baseline, self.baseline_notes = self._checked_baseline(baseline, task)
        history = self._open(resume, listen)
        ranks, place = self._ranks, self.run_dir / "checkpoints"
        self._session = Session(
            self.engine,
            store(ranks, place, self.config.checkpoint, self._skipped),
            take_commands=ranks.take if ranks else self._voice.take_commands,
            validate=validate,
            flush_records=self._voice.flush,
            alert_open=self._voice.is_open,
            wall_clock=(lambda: ranks.now) if ranks else time.time,
        )
        self._closed = self._begun = False
        try:
            self._start(history, task)
            self._agent = self._start_agent(listen) if serve and self._first else None
            self._system = self._watch_system() if self._first else None
        except BaseException:
            self._release()
            raise
        atexit.register(self._close_at_exit)

    # -- training ---------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> StepRecord:
        """Train on one batch; returns what was measured. Commands are applied when it ends, and a pause waits there.

        Raises RunError once the run has ended, TrainingFailed when NaN or Inf outlast every rollback.
        """
        self._begin()
        try:
            record = self.engine.step(batch)
            self._session.after_step()
        except TrainingFailed as failure:
            self._session.end("failed", str(failure))
            raise
        return record

    def run(self, batches: Iterable[Batch], steps: int | None = None) -> int:
        """Train until ``steps`` nominal steps in all are taken, an operator stops the run, or early stopping does.

        ``batches`` is iterated again from its start when it ends (a new epoch); a resumed run skips the batches that
        were used, in the order they had, and an empty one is passed over with an alert. Without ``steps``: the
        trainer's ``total_steps``, or one pass over ``batches``. Returns the nominal step reached. Raises RunError
        when the run had ended before; one that was stopped stays where it is.
        """
        if self.state == "stopped" and not self._closed:
            return self.engine.step_count
        if steps is not None:
            self.engine.total_steps = steps_or_none("steps", steps)
        self._begin()
        one_pass = self.engine.total_steps is None
        source = self.engine.data.stream(batches, self.engine.batches, one_pass)
        if self._ranks is not None and one_pass:
            source = until_one_ends(source, self._ranks)
        while not self.stopped and self.engine.steps_left > 0 and (batch := next(source, NO_MORE)) is not NO_MORE:
            if self._ranks is not None or not self.engine.data.passes_over(self.engine, batch):
                self.step(batch)
        if not self.stopped:
            self._session.end("finished", "the batches are used up" if one_pass else "all steps taken")
        return self.engine.step_count

    @property
    def stopped(self) -> bool:
        """Whether the run has ended: finished, stopped by an operator, or failed."""
        return self._ended is not None

    @property
    def state(self) -> str:
        """running, paused, finished, stopped or failed."""
        if self._ended is not None:
            return self._ended[0]
        return "paused" if self._session.paused else "running"

    @property
    def outcome(self) -> tuple[str, str]:
        """(state, because) of a run that has ended; ("running", "") before."""
        return self._ended or (self.state, "")

    @property
    def _ended(self) -> tuple[str, str] | None:
        return self._session.ended or (LOOP_ENDED if self._closed else None)

    @property
    def phase(self) -> Phase:
        """The phase of the coming step."""
        return self.engine.phase

    @property
    def rank(self) -> int:
        """This process among those that train together; 0 when there is one."""
        return self._ranks.rank if self._ranks else 0

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self._ranks.size if self._ranks else 1

    @property
    def step_count(self) -> int:
        """Nominal steps taken, predicted ones included."""
        return self.engine.step_count

    def knob(
        self,
        name: str,
        get: Callable[[], float],
        set: Callable[[float], object],
        *,
        low: float,
        high: float,
        unit: str = "",
        meaning: str = "",
    ) -> None:
        """Offer something to turn between two steps: it appears as a command with these bounds.

        What an operator has set outlasts a rollback, and a restart that declares it again. Raises ConfigError.
        """
        knob = Knob(name, get, set, low, high, unit, meaning)
        self.engine.record(self._session.knobs.declare(knob, self.engine.step_count))

    def stop(self, because: str = "stopped by the program") -> None:
        """Save a checkpoint and end the run; it can be resumed."""
        if not self.stopped:
            self._session.stop(because)

    def stop_soon(self, because: str = "stopped by the program") -> None:
        """Stop, with a checkpoint, after the step under way, or in a pause; of several ranks one may be asked alone."""
        self._session.stop_asked = because
        if self._ranks is not None:
            self._ranks.stop_asked = True

    def finish(self, because: str) -> None:
        """End the run as finished; ``close`` settles, saves and validates."""
        self._session.end("finished", because)

    def save_checkpoint(self, because: str = "asked for by the program") -> str:
        """Save now; returns the checkpoint's name."""
        return self._session.save_checkpoint(because).name

    def roll_back(self, checkpoint: str | None = None) -> None:
        """Restore a checkpoint (None: the last good one) as a new attempt. Raises CheckpointError."""
        self._session.roll_back(checkpoint, "rolled back by the program")

    def state_dict(self) -> dict[str, Any]:
        """Model and engine state: everything that going on bit for bit needs."""
        return {"model": self.engine.model.state_dict(), "session": self._session.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.engine.model.load_state_dict(state["model"])
        self._session.load_state_dict(state["session"])

    def close(self) -> None:
        """Write how the run ended and release the run directory. The agent lingers for those who still watch."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        try:
            if self._system is not None:
                self._system.close()  # before the last word, which is the trainer's
            self._session.close()
        finally:
            self._release()

    def _close_at_exit(self) -> None:
        """A script that ends without ``close`` says how its run ended as the end of a ``with`` block does.

        At a prompt, where the last error may be of any line, it was closed.
        """
        self.__exit__(None, None if hasattr(sys, "ps1") else getattr(sys, "last_value", None), None)

    def __enter__(self) -> "HybridTrainer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self._session.ended is None:
            if isinstance(error, KeyboardInterrupt):
                with contextlib.suppress(OSError):  # of several ranks, others may not be there to save with
                    self._session.end(*last_word(error)) if self._ranks else self._session.stop(last_word(error)[1])
            else:
                self._session.end(*last_word(error))
        self.close()

    # -- putting it together ----------------------------------------------------------------------------------------

    @property
    def _first(self) -> bool:
        """Whether this process has the run directory."""
        return self._ranks is None or self._ranks.first

    def _open(self, resume: bool, listen: str | None) -> History | None:
        """Claim the directory and open the journal (rank 0); the history of an earlier process, on every rank."""
        found: list[History | None] = []

        def claim_it() -> bytes:
            self._opened = open_run(self.run_dir, resume, self._goes_on_as, listen, to_toml(self.config))
            self._voice.reporter, self.run_dir = self._opened.reporter, self._opened.run_dir
            found.append(self._opened.history)
            return msgspec.msgpack.encode(found[0])

        told = self._as_first(claim_it)
        if not found:
            found.append(msgspec.msgpack.decode(told, type=History | None))
            if found[0] is not None:
                self._goes_on_as(found[0])
        return found[0]

    def _checked_baseline(self, baseline: str | Path | None, task: str) -> tuple[str | None, tuple[str, ...]]:
        if baseline is None:
            return None, ()
        found = self._as_first(lambda: baselines.checked(self.run_dir, Path(baseline), self._run_started(task, None)))
        return found[0], tuple(found[1])

    def _as_first(self, do: Callable[[], Any]) -> Any:
        return do() if self._ranks is None else self._ranks.as_first(do)

    def _goes_on_as(self, history: History) -> None:
        """A resumed run stays plain or hybrid, and keeps its baseline unless it is given another."""
        if history.own_loop:
            raise WrongRun(f"{self.run_dir} is a loop that a Monitor watches: HybridTrainer cannot go on with it")
        if history.world_size != self.world_size:
            raise WrongRun(
                f"{self.run_dir} was begun by {history.world_size} ranks and cannot be resumed by {self.world_size}: "
                f"torchrun --nproc-per-node={history.world_size}"
            )
        if self._plain and not history.plain:
            raise WrongRun(f"{self.run_dir} was not begun as a plain baseline and cannot go on as one")
        self._plain = history.plain
        self._baseline = self._baseline or history.baseline

    def _start(self, history: History | None, task: str) -> None:
        engine, session = self.engine, self._session
        if history is None:
            self._voice.say(self._run_started(task, None), 0)
            return
        engine.state_rev, session.last_attempt, engine.attempt = history.state_rev, history.attempt, history.attempt
        try:
            entry = session.resume(history.attempt, history.step, "resumed", history.began)
        except (CheckpointError, RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.run_dir} cannot be resumed: {error}") from error
        given_up = max(0, history.backward_passes - engine.backward_passes)  # they are counted over all attempts
        engine.backward_passes += given_up
        engine.progress.given_up(given_up)
        resumed_from = entry.name if entry is not None else None
        self._voice.say(self._run_started(task, resumed_from), engine.attempt)
        engine.recorder.alarms.known({alert_id for alert_id, _ in history.open_alerts})
        for alert_id, rule in history.open_alerts:
            if not engine.recorder.alarms.is_open(alert_id):
                engine.record(AlertResolved(engine.step_count, alert_id, rule, "the run was resumed from before it"))
        unfinished_business(session.inbox, history, resumed_from)

    def _start_agent(self, listen: str | None) -> AgentProcess:
        reporter, engine = self._voice.reporter, self.engine
        assert reporter is not None
        say, step = (lambda record: self._voice.say_of_machine(record, engine.attempt)), (lambda: engine.step_count)
        return start_agent(self.run_dir, queued=lambda: reporter.queued, listen=listen, say=say, step=step)

    def _watch_system(self) -> SystemWatch:
        engine = self.engine
        return watch_system(
            self.run_dir, self._voice.say_of_machine, engine.recorder.all_alarms, step=lambda: engine.step_count,
            attempt=lambda: engine.attempt, config=lambda: engine.config,
            device=device_name(engine.parameters.device),
        )  # fmt: skip

    def _begin(self) -> None:
        ended = self._session.ended or (("the trainer was closed",) if self._closed else None)
        if ended is not None:
            raise RunError(f"the run has ended ({': '.join(ended)}): make a new trainer with resume=True to go on")
        if not self._begun:
            self._begun = True
            self._session.begin("training begins" if self.engine.step_count == 0 else "training goes on")

    def _run_started(self, task: str, resumed_from: str | None) -> RunStarted:
        return run_started(
            self.engine, self.run_dir, task, resumed_from=resumed_from, plain=self._plain, baseline=self._baseline,
            world_size=self.world_size,
        )  # fmt: skip

    def _skipped(self, name: str, because: str) -> None:
        self._session.skipped(name, because)

    def _release(self) -> None:
        self._voice.close()
        if (agent := getattr(self, "_agent", None)) is not None:
            agent.close()
        if self._opened is not None:
            self._opened.lock.close()
