"""A run around the engine: checkpoints, pause and stop, validation, commands at the boundary. Knows no sockets.

``after_step`` is the boundary: everything that is not training happens there, in this order: validation, checkpoint,
remedies that apply themselves, commands, waiting while paused.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from trainer_core.engine import fitting, predicting
from trainer_core.engine.buffers import load_model
from trainer_core.engine.checkpoints import Checkpoints, Entry
from trainer_core.engine.decay import with_decay
from trainer_core.engine.due import checkpoint_is_due, is_due
from trainer_core.engine.engine import Engine
from trainer_core.engine.inbox import Inbox
from trainer_core.engine.knobs import Knobs
from trainer_core.engine.lengths import OF_FULL
from trainer_core.engine.obey import apply
from trainer_core.engine.remedying import Remedying
from trainer_core.engine.validating import HeldOut, Validate, measured
from trainer_core.spec.commands import AcceptedCommand, ScaleLearningRate, SetGradientClip
from trainer_core.spec.config import live_values, with_live_settings
from trainer_core.spec.errors import LOOP_ENDED, UserError, last_word
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    AttemptStarted,
    CheckpointSaved,
    CheckpointSkipped,
    PhaseChanged,
    RunState,
    ValidationMeasured,
)
from trainer_core.spec.severity import Severity

_POLL_S = 0.02
_BEST = "best validation loss so far"
_KEPT_ON_ROLLBACK = (
    "batches",
    "backward_passes",
    "forwards",
    "predictions_entered",
    "predictions_kept",
    "predictions_undone",
    "locked",
)
"""Counters over all attempts, the data position (a batch that broke must not come again), and the operator's lock."""


class Session:
    """One process's stretch of a run. Commands, validation, the journal's flush and the clocks are passed in.

    ``alert_open``: whether an alert that is not the engine's own (the journal's, the agent's) is open.
    """

    def __init__(
        self,
        engine: Engine,
        checkpoints: Checkpoints,
        *,
        take_commands: Callable[[], Iterable[AcceptedCommand]] = tuple,
        validate: Validate | None = None,
        flush_records: Callable[[], object] = lambda: None,
        alert_open: Callable[[str], bool] = lambda alert_id: False,
        wall_clock: Callable[[], float] = time.time,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.engine, self.checkpoints, self.validate = engine, checkpoints, validate
        self.knobs = Knobs()
        self.inbox = Inbox(engine, lambda command, actor: apply(command, self, actor), wall_clock)
        self.remedying = Remedying(self)
        self.paused = False
        self.ended: tuple[str, str] | None = None
        """(state, because) once the run has ended: finished, stopped or failed."""
        self.stop_asked: str | None = None
        """Why the run is to stop at the coming boundary; among ranks the roll call tells, and in a pause rank 0."""
        self.last_attempt = 0
        """Highest attempt number used so far; the next rollback takes the one after it."""
        self._take_commands, self._flush_records, self._wait = take_commands, flush_records, wait
        self.alert_open = alert_open
        self.held_out = HeldOut()
        self._saved_at = self._batches_saved = 0
        self._configured = engine.config
        engine.roll_back = lambda because: self._automatic_rollback(because)
        engine.data.keep = (lambda because: None) if engine.ranks else self._save_if_possible

    # -- the boundary -----------------------------------------------------------------------------------------------

    def begin(self, because: str) -> None:
        """Say that the run goes, keep a checkpoint to go back to, and take commands that already wait."""
        self.engine.record(RunState(self.engine.step_count, "running", because))
        if self.engine.step_count == 0:
            self.save_checkpoint("start")
        self.commands()

    def after_step(self) -> None:
        """The boundary after a step."""
        engine = self.engine
        if is_due(engine, engine.config.training.validate_every, self.held_out.step, self.held_out.batches):
            self.measure_validation()
        if self._best_to_keep:
            self._save_if_possible(_BEST)
        elif checkpoint_is_due(engine, self._saved_at, self._batches_saved):
            self._save_if_possible(f"every {engine.config.checkpoint.checkpoint_every}")
        if engine.steps_left <= 0:
            self.end("finished", f"all {engine.total_steps} steps taken")
        self._stop_if_asked()
        if self.ended is None:
            self.remedying.apply_due()
        self.commands()

    @property
    def _best_to_keep(self) -> bool:
        """Whether the present weights have the best validation so far, and are to be kept for it."""
        engine = self.engine
        return self.held_out.is_best(engine) and engine.config.checkpoint.keep_best and engine.healthy

    def commands(self) -> None:
        """Apply commands that are due; while paused, wait for more, or for the program to be asked to stop."""
        self._poll()
        while self.paused and self.ended is None:
            self._wait(_POLL_S)
            self._poll()
            if self.paused:
                self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        ranks = self.engine.ranks
        if self.ended is not None:
            return
        if ranks is None and self.stop_asked is not None:
            self._stop_anyway(self.stop_asked)
        elif ranks is not None and ranks.stopping is not None:
            self._stop_anyway(f"rank {ranks.stopping} was asked to stop")

    def _stop_anyway(self, because: str) -> None:
        """A signal is not refused as a command is, because the disk is full."""
        self.end("stopped", because)
        self._save_if_possible(because)

    def _poll(self) -> None:
        self.inbox.put(self._take_commands())
        if self.ended is None:
            self.inbox.apply_due()

    # -- what commands and rules ask for ----------------------------------------------------------------------------

    def set_paused(self, paused: bool, because: str) -> None:
        """Pause or go on; no record when nothing changes."""
        if paused != self.paused:
            self.paused = paused
            self.engine.record(RunState(self.engine.step_count, "paused" if paused else "running", because))

    def stop(self, because: str) -> None:
        """Save a checkpoint and end; the run can be resumed."""
        self.save_checkpoint(because)
        self.end("stopped", because)

    def end(self, state: str, because: str) -> None:
        """The run has ended; the record of it is written by ``close``, after everything else."""
        self.paused = False
        self.ended = self.ended or (state, because)

    def close(self) -> None:
        """Settle what is open, save, validate, and say how the run ended, also when one of these fails."""
        try:
            if self.ended is not None and self.ended[0] == "finished":
                self._wind_up()
        except BaseException as error:
            self.ended = last_word(error)
            raise
        finally:
            state, because = self.ended or LOOP_ENDED
            ranks = self.engine.ranks
            self.inbox.put(self._take_commands() if ranks is None else ranks.left_over())
            self.inbox.close(f"the run has {state}")
            self.engine.recorder.calibration()
            self.engine.record(RunState(self.engine.step_count, state, because))

    def _wind_up(self) -> None:
        self.settle()
        try:
            saved = self._save_if_possible("end")
        except UserError as error:
            self.ended = "failed", str(error)
            return
        if self.held_out.is_missing(self.engine):
            self.measure_validation()
            if saved and self._best_to_keep:
                self._save_if_possible(_BEST)

    def settle(self) -> None:
        """Judge a prediction that the end of the run left open, on the last batch."""
        if self.engine.flight is not None and self.engine.last_batch is not None:
            predicting.judge(self.engine, self.engine.last_batch, "the run ended")

    @torch.no_grad()
    def measure_validation(self) -> None:
        """Held-out loss, in evaluation mode, the mean over the ranks; early stopping counts it."""
        engine = self.engine
        self.held_out.here(engine)
        if self.validate is None:
            return
        start = engine.clock()
        training = [m for m in engine.model.modules() if m.training]
        engine.model.eval()
        try:
            loss, accuracy = measured(self.validate())
        finally:
            for module in training:
                module.training = True
        if engine.ranks is not None:
            loss = engine.ranks.mean(loss)
            accuracy = None if accuracy is None else engine.ranks.mean(accuracy)
        engine.record(ValidationMeasured(engine.step_count, loss, accuracy, engine.clock() - start))
        patience = engine.config.training.early_stopping_patience
        self.held_out.take(loss, engine)
        if patience and self.held_out.waited >= patience:
            best = next((entry.name for entry in reversed(self.checkpoints.entries()) if entry.best), "none saved")
            self.end(
                "finished",
                f"early stopping: no better validation loss in {patience} validations; best checkpoint: {best}",
            )

    def _save_if_possible(self, because: str) -> bool:
        """Whether it was saved. A full disk costs this checkpoint and raises an alert; the run goes on, or ends,
        without it."""
        step = self._saved_at = self.engine.step_count
        self._batches_saved = self.engine.batches
        try:
            self.save_checkpoint(because)
            return True
        except OSError as error:
            message = f"the checkpoint of step {step} could not be saved: {type(error).__name__}: {error}"
            alert = AlertRaised(
                step, f"checkpoint-{step}", "checkpoint", Severity.WARNING, "checkpoint", None, None, message
            )
            self.engine.record(alert)
            on = "training goes on" if self.ended is None else "the run ends"
            self.engine.record(AlertResolved(step, alert.alert_id, alert.rule, f"{on} without it"))
            return False

    def save_checkpoint(self, because: str) -> Entry:
        """Save now, whatever the phase, once the records of its steps are committed: a run that is killed right after
        it and resumed from it has no hole in its journal.

        Raises OSError when the disk refuses (the run goes on with the older ones), UserError for replaced parameters.
        """
        engine = self.engine
        start = engine.clock()
        engine.parameters.check_models(engine.model)
        self._flush_records()
        begins = engine.step_count == 0  # what is told to a run before it begins is meant for its first step
        with contextlib.nullcontext() if begins else self.inbox.busy("a checkpoint was being saved"):
            entry = self.checkpoints.save(
                engine.model, self.state_dict(), engine.step_count, engine.attempt, engine.good,
                self.held_out.is_best(engine),
            )  # fmt: skip
        self._saved_at, self._batches_saved = engine.step_count, engine.batches
        engine.recoveries = 0 if engine.step_count > self._recovered_to else engine.recoveries
        engine.record(
            CheckpointSaved(
                engine.step_count, entry.name, entry.bytes, entry.good, because, engine.clock() - start, entry.best,
                entry.removed,
            )
        )  # fmt: skip
        return entry

    _recovered_to = -1
    """Step of the last automatic rollback's target: a later checkpoint means training got past it."""

    def _automatic_rollback(self, because: str) -> None:
        with self.inbox.busy("a checkpoint was being restored"):
            self._recovered_to = self._restore(None, because).step
        clip = self.engine.config.optimizer.gradient_clip_norm
        self.inbox.carry_out(ScaleLearningRate(0.1), because)
        self.inbox.carry_out(SetGradientClip(min(clip, 1.0) if clip > 0 else 1.0), because)

    def roll_back(self, name: str | None, because: str) -> Entry:
        """Restore a checkpoint (None: the last good one) as a new attempt. Raises CheckpointError, changing nothing.

        Weights, optimizer, predictor and statistics go back; settings an operator made, counters and data go on.
        """
        engine, phase = self.engine, self.engine.phase
        with self.inbox.busy("a checkpoint was being restored"):
            entry = self._restore(name, because)
        if engine.phase is not phase:
            because_ = (f"rollback to {entry.name}",)
            begins = engine.step_count + 1
            engine.record(PhaseChanged(begins, phase, engine.phase, because_, engine.cycle, engine.phase_budget))
        return entry

    def _restore(self, name: str | None, because: str) -> Entry:
        engine = self.engine
        start, device = engine.clock(), engine.parameters.device
        entry, weights, state = (
            self.checkpoints.load(name, device) if name else self.checkpoints.load_newest(device, good=True)
        )
        predicting.abandon(engine, because)
        kept = {counter: getattr(engine, counter) for counter in _KEPT_ON_ROLLBACK}
        scale, left, parent = engine.schedule.scale, engine.step_count, engine.attempt
        decays = [group.get("weight_decay") for group in engine.optimizer.param_groups]
        alarms = engine.recorder.alarms.state_dict()
        load_model(engine.model, weights)
        engine.load_state_dict(state["engine"])
        for counter, value in kept.items():
            setattr(engine, counter, value)
        for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
            if decay is not None:
                group["weight_decay"] = decay
        then, now = live_values(with_live_settings(self._configured, state["live"])), live_values(engine.config)
        if engine.phase is Phase.FULL and any(then[name] != now[name] for name in OF_FULL):
            engine.probe_at = engine.full_needed
        engine.progress.forget()
        engine.predictions_entered += engine.flight is not None  # a prediction that was saved under way flies again
        engine.schedule.scale = scale
        engine.recorder.alarms.load_state_dict(alarms)
        engine.schedule.apply(engine.step_count + 1)
        self._saved_at = engine.step_count
        self.held_out.went_back(state, engine)
        self._begin_attempt(parent, left, entry, because, start)
        return entry

    def _begin_attempt(self, parent: int, left: int, entry: Entry | None, because: str, start: float) -> None:
        engine, name = self.engine, None
        known = 0 if entry is None else entry.attempt  # more than a journal knows that was lost and begun anew
        self.last_attempt = max(self.last_attempt, parent, known) + 1
        engine.attempt = self.last_attempt
        if entry is not None:
            name = entry.name
            self.checkpoints.began(engine.attempt, entry.attempt, entry.step)
        seconds = engine.clock() - start
        engine.record(AttemptStarted(engine.step_count, engine.attempt, parent, left, name, because, seconds))

    # -- resume -----------------------------------------------------------------------------------------------------

    def resume(self, parent: int, left: int, because: str, began: Mapping[int, tuple[int, int]] = {}) -> Entry | None:
        """Restore the newest whole checkpoint that was not rolled back, in a new process, data position included.

        ``parent`` and ``left`` are the last attempt and step the journal has, ``began`` what earlier attempts went on
        from: (attempt, step) of a checkpoint. A run that took no step and saved nothing begins again: None.
        Raises CheckpointError.
        """
        engine = self.engine
        start = engine.clock()
        if left == 0 and not self.checkpoints.names():
            self._begin_attempt(
                parent, 0, None, f"{because} from the beginning: it ended before anything was saved", start
            )
            return None
        for attempt, source in began.items():
            self.checkpoints.began(attempt, *source)
        entry, weights, state = self.checkpoints.load_newest(engine.parameters.device, good=False)
        fitting.check(engine, weights, state["engine"])
        engine.model.load_state_dict(weights)
        self.load_state_dict(state)
        fitting.follow_settings(engine.optimizer, state["engine"], engine.made)
        self.paused = False
        # A disk too slow for the journal may have let a checkpoint overtake it: the attempt did reach the checkpoint.
        self._begin_attempt(parent, max(left, engine.step_count), entry, because, start)
        anew = fitting.anew(engine, state["engine"])
        if anew is not None:
            engine.record(Annotated(engine.step_count, anew, "trainer"))
        return entry

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's weights; ``live`` are the settings changed since the run began."""
        before, now = live_values(self._configured), live_values(self.engine.config)
        decay = self.engine.config.optimizer.weight_decay
        return {
            "engine": self.engine.state_dict(),
            "live": {name: value for name, value in now.items() if value != before[name]},
            "weight_decay": None if decay == self._configured.optimizer.weight_decay else decay,
            **self.held_out.state_dict(),
            "remedying": self.remedying.state_dict(),
            "knobs": self.knobs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave, changed settings included. Raises ConfigError when they do not fit."""
        self.engine.load_state_dict(state["engine"])
        self.engine.data.load_state_dict(state["engine"]["random"].get("data"))  # a rollback reads on instead
        self._saved_at, self._batches_saved = self.engine.step_count, self.engine.batches
        self.held_out.load_state_dict(state, self.engine)
        self.remedying.load_state_dict(state["remedying"])
        self.knobs.load_state_dict(state.get("knobs", {}))  # a checkpoint of before there were knobs
        config = with_live_settings(self.engine.config, state["live"])
        decay = state.get("weight_decay")
        self.engine.config = config if decay is None else with_decay(config, decay)

    def skipped(self, name: str, because: str) -> None:
        """Record a checkpoint that was passed over."""
        self.engine.record(CheckpointSkipped(self.engine.step_count, name, because))
