"""Two real processes that train together, in one program: it imports torch once and forks the ranks of each act.

``python -m tests.engine.ranks FOLDER`` plays every act; what a rank found is in FOLDER/ACT-RANK.pt, how each ended in
FOLDER/ended.json. Nothing here can hang: collectives time out, and ranks that outlive their act are killed.
"""

import contextlib
import datetime
import hashlib
import json
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tests.engine.rig import EAGER, batch_of, per_sample
from trainer_core import HybridTrainer, Observation, Proposal, TrainingState, run
from trainer_core.engine.launching import set_timeout
from trainer_core.spec.commands import (
    AcceptedCommand,
    AcknowledgeAlert,
    Command,
    CommandRequest,
    CommandState,
    LockPrediction,
    Pause,
    Resume,
    Rollback,
    SaveCheckpoint,
    SetLearningRate,
    SilenceAlert,
    Stop,
)
from trainer_core.spec.errors import TrainingFailed, UserError
from trainer_core.spec.loading import resolve
from trainer_core.spec.records import CommandChanged, PredictionEnded, Record, ValidationMeasured
from trainer_core.tasks import digits
from trainer_core.telemetry.commands_db import CommandsWriter

TIMEOUT_S, ACT_S = 60.0, 90.0
Found = dict[str, Any]
Batch = tuple[Tensor, Tensor]


class Play:
    """A run of one rank, and what it noted."""

    def __init__(self, folder: Path, rank: int, **settings: Any) -> None:
        self.rank, self.records = rank, list[Record]()
        given = {k: settings.pop(k) for k in ("total_steps", "resume", "plain", "predictor") if k in settings}
        torch.manual_seed(100 + rank)
        self.model = settings.pop("model", None) or noisy_network()
        make = settings.pop("optimizer", lambda ps: torch.optim.AdamW(ps, 3e-3))
        self.trainer = HybridTrainer(
            self.model,
            make(self.model.parameters()),
            settings.pop("loss", per_sample),
            EAGER | settings,
            folder / "run",
            serve=False,
            on_record=lambda record, attempt: self.records.append(record),
            **({"total_steps": 60} | given),
        )
        self.steps: list[Found] = []

    def step(self, batch: Batch | None = None) -> None:
        """One step on this rank's own batch."""
        trainer = self.trainer
        own = batch_of(trainer.engine.batches * trainer.world_size + self.rank)
        said = trainer.step(own if batch is None else batch)
        self.steps.append(
            {
                "step": said.step,
                "phase": str(said.phase),
                "loss": said.loss,
                "rate": said.learning_rate,
                "state_rev": trainer.engine.state_rev,
                "attempt": trainer.engine.attempt,
                "locked": trainer.engine.locked,
                "weights": fingerprint(self.model),
                "slowest": said.slowest_rank,
                "snr": said.micro_grad_snr,
            }
        )

    def to_the_end(self) -> "Play":
        """Every step that is left."""
        while not self.trainer.stopped and self.trainer.engine.steps_left > 0:
            self.step()
        if not self.trainer.stopped:
            self.trainer.finish("all steps taken")
        return self

    def found(self, **more: Any) -> Found:
        """What this rank saw, the run closed."""
        self.trainer.close()
        return {
            "steps": self.steps,
            "outcome": self.trainer.outcome,
            "weights": {k: v.clone() for k, v in self.model.state_dict().items()},
            "kept": [r.kept for r in self.records if isinstance(r, PredictionEnded)],
            "records": len(self.records),
            "commands": [(r.command_id, str(r.state), r.detail) for r in self.records if isinstance(r, CommandChanged)],
            "files": sorted(p.name for p in (self.trainer.run_dir / "checkpoints").glob("step-*")),
        } | more


def noisy_network() -> nn.Module:
    """Dropout draws from each rank's own random numbers; BatchNorm has buffers."""
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def plain_network() -> nn.Module:
    """Nothing random and no buffers."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def fingerprint(model: nn.Module) -> str:
    """A digest of every bit of parameters and buffers."""
    data = b"".join(t.detach().contiguous().numpy().tobytes() for t in model.state_dict().values())
    return hashlib.sha256(data).hexdigest()[:16]


class Fickle:
    """A predictor whose every second proposal goes far the wrong way."""

    def __init__(self) -> None:
        self.last_P: Tensor | None = None
        self.asked = 0

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        self.last_P = delta_P.clone()
        return Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal | None:
        self.asked += 1
        return None if self.last_P is None else Proposal.along(self.last_P * (1.0 if self.asked % 2 else -40.0))

    def state_dict(self) -> Found:
        return {"last": self.last_P, "asked": self.asked}

    def load_state_dict(self, state: Found) -> None:
        self.last_P, self.asked = state["last"], state["asked"]


# -- the acts --------------------------------------------------------------------------------------------------------


def training(rank: int, folder: Path) -> Found:
    """Every phase, predictions kept and undone."""
    return Play(folder, rank, predictor=Fickle(), rank_check_every=5).to_the_end().found()


def adaptive(rank: int, folder: Path) -> Found:
    """The adaptive policy with a learned predictor that trains by the clock, far below the tuned learning rate."""
    play = Play(
        folder, rank, total_steps=200, policy="adaptive", predictor_config={"type": "MLP"}, predictor_time_share=1.0,
        max_predict_steps=5, min_predict_steps=4, min_full_steps=3, rank_check_every=1, confidence_threshold=0.5,
        model=plain_network(), optimizer=lambda ps: torch.optim.AdamW(ps, 1e-4),
    )  # fmt: skip
    play.to_the_end()
    return play.found(units=play.trainer.engine.predictor.units)  # type: ignore[attr-defined]


def unequal_batches(rank: int, folder: Path) -> Found:
    """Many samples on rank 0 and few on rank 1, which its tests measure whole."""
    play = Play(
        folder, rank, total_steps=150, policy="adaptive", min_predict_steps=2, rank_check_every=1,
        confidence_threshold=0.5, model=plain_network(), optimizer=lambda ps: torch.optim.AdamW(ps, 3e-4),
    )  # fmt: skip
    while play.trainer.engine.steps_left > 0:
        x, y = batch_of(play.trainer.engine.batches * 2 + rank)
        size = 32 if rank == 0 else 3 + play.trainer.engine.batches % 9
        play.step((x[:size], y[:size]))
    return play.found()


def halves(rank: int, folder: Path) -> Found:
    """Plain SGD, each rank on its half of a batch; clipped, so that the norm counts too."""
    return _plain_sgd(rank, folder, 2)


def whole(rank: int, folder: Path) -> Found:
    """The same in one process, on the whole batch."""
    return _plain_sgd(rank, folder, 1)


def _plain_sgd(rank: int, folder: Path, size: int) -> Found:
    model = plain_network()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
    play = Play(
        folder, rank, model=model, plain=True, total_steps=25, gradient_clip_norm=0.5,
        optimizer=lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9),
    )  # fmt: skip
    while play.trainer.engine.steps_left > 0:
        x, y = batch_of(play.trainer.engine.batches)
        part = len(y) // size
        play.step((x[rank * part : (rank + 1) * part], y[rank * part : (rank + 1) * part]))
    play.trainer.finish("done")
    return play.found(micro=size)


def unused(rank: int, folder: Path) -> Found:
    """A layer that only rank 1 uses, and one that nobody does."""

    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.sometimes, self.never = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x) + (self.sometimes(x) if rank == 1 else 0)
            return out

    model = Partly()
    play = Play(folder, rank, model=model, plain=True, total_steps=5, rank_check_every=1)
    never, sometimes = model.never.weight.detach().clone(), model.sometimes.weight.detach().clone()
    play.to_the_end()
    return play.found(
        never=bool(torch.equal(never, model.never.weight)), moved=not torch.equal(sometimes, model.sometimes.weight)
    )


def commanded(rank: int, folder: Path) -> Found:
    """Commands of every sort, to rank 0 alone."""
    play = Play(folder, rank, total_steps=200)
    writer = CommandsWriter(folder / "run") if rank == 0 else None
    waits = []

    def send(name: str, command: Command, **request: Any) -> None:
        if writer is not None:
            accepted = AcceptedCommand(CommandRequest(f"command-{name}", command, **request), "ann", time.time())
            writer.add(accepted, CommandState.ACCEPTED, None, "")

    def until(done: Callable[[], bool]) -> None:
        while not done():
            play.step()

    engine = play.trainer.engine
    until(lambda: engine.step_count >= 6)
    send("lock", LockPrediction(True))
    until(lambda: engine.locked)
    send("rate", SetLearningRate(1e-3))
    until(lambda: engine.state_rev == 2)
    send("save", SaveCheckpoint())
    until(lambda: engine.state_rev == 3)
    send("unknown", AcknowledgeAlert("nothing-like-it"))
    send("silence", SilenceAlert("disk_full", 5))
    send("never", SetLearningRate(0.5), ttl_s=1e-3)
    send("late", SetLearningRate(2e-3), at_step=engine.step_count + 40)  # a busy machine fetches late
    until(lambda: engine.schedule.scale != 1.0 and play.steps[-1]["rate"] == 2e-3)
    send("pause", Pause())
    send("rollback", Rollback())
    send("resume", Resume())
    until(lambda: engine.attempt == 1)
    waits.append(play.trainer.state)
    send("stop", Stop())
    until(lambda: play.trainer.stopped)
    if writer is not None:
        writer.close()
    return play.found(waits=waits)


def poisoned(rank: int, folder: Path) -> Found:
    """NaN in one batch of rank 1."""
    play = Play(folder, rank, total_steps=30, checkpoint_every=5)
    while play.trainer.engine.steps_left > 0:
        x, y = batch_of(play.trainer.engine.batches * 2 + rank)
        play.step((x * float("nan") if rank == 1 and play.trainer.engine.batches == 7 else x, y))
    play.trainer.finish("done")
    return play.found(scale=play.trainer.engine.schedule.scale, attempt=play.trainer.engine.attempt)


def unlabelled(rank: int, folder: Path) -> Found:
    """Every third batch has no label on rank 1, every ninth on neither: the mean over them is NaN."""
    loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    play = Play(folder, rank, total_steps=120, loss=loss, policy="adaptive", rank_check_every=1)
    while not play.trainer.stopped and play.trainer.engine.steps_left > 0:
        turn = play.trainer.engine.batches
        x, y = batch_of(turn * 2 + rank)
        none = turn % 9 == 8 or (turn % 3 == 2 and rank == 1)
        play.step((x, torch.full_like(y, -100) if none else y))
    play.trainer.finish("done")
    return play.found(scale=play.trainer.engine.schedule.scale)


_RESUMED = {"total_steps": 40, "checkpoint_every": 7, "predictor": None}


def uninterrupted(rank: int, folder: Path) -> Found:
    """What a run that is not killed comes to."""
    return Play(folder, rank, **_RESUMED).to_the_end().found()


def killed(rank: int, folder: Path) -> Found:
    """Rank 1 dies in the middle of it."""
    play = Play(folder, rank, **_RESUMED)
    try:
        while True:
            if rank == 1 and play.trainer.step_count >= 20:
                os.kill(os.getpid(), signal.SIGKILL)
            play.step()
    except TrainingFailed as failure:
        return play.found(failure=str(failure))


def silent(rank: int, folder: Path) -> Found:
    """Rank 1 lives, but joins no step any more."""
    play = Play(folder, rank)
    heard = folder / "heard"
    try:
        while True:
            if rank == 1 and play.trainer.step_count >= 4:
                _wait_for(heard)
                return play.found()
            if play.trainer.step_count >= 4:
                set_timeout(1.0)
            play.step()
    except TrainingFailed as failure:
        heard.touch()
        return play.found(failure=str(failure))


def _wait_for(file: Path) -> None:
    ends = time.monotonic() + ACT_S / 2
    while not file.exists() and time.monotonic() < ends:
        time.sleep(0.02)


def resumed(rank: int, folder: Path) -> Found:
    """The killed run goes on."""
    play = Play(folder, rank, resume=True, **_RESUMED)
    began = play.trainer.step_count
    return play.to_the_end().found(began=began)


def resumed_alone(rank: int, folder: Path) -> Found:
    """One process alone tries to go on with it."""
    return {"refusal": _refusal(lambda: Play(folder, rank, resume=True, **_RESUMED))}


def disagreeing(rank: int, folder: Path) -> Found:
    """One bit of one weight of rank 1 is turned over."""
    play = Play(folder, rank, total_steps=60, rank_check_every=10)
    try:
        while True:
            if play.trainer.step_count == 4 and rank == 1:
                with torch.no_grad():
                    next(play.model.parameters()).view(-1)[:1].view(torch.int32).bitwise_xor_(1)
            play.step()
    except TrainingFailed as failure:
        return play.found(failure=str(failure))


def asked_to_stop(rank: int, folder: Path) -> Found:
    """Somebody asks rank 1 alone."""
    play = Play(folder, rank)
    while not play.trainer.stopped:
        if rank == 1 and play.trainer.step_count >= 8:
            play.trainer.stop_soon()
        play.step()
    return play.found()


def asked_in_a_pause(rank: int, folder: Path) -> Found:
    """All ranks pause, and rank 0 is asked to stop while they wait."""
    play = Play(folder, rank)
    while play.trainer.step_count < 8:
        play.step()
    session = play.trainer._session
    session.set_paused(True, "by the test")
    session._wait = (lambda seconds: play.trainer.stop_soon()) if rank == 0 else time.sleep
    session.commands()
    return play.found()


def uneven(rank: int, folder: Path) -> Found:
    """One pass over three batches on rank 0 and five on rank 1."""
    play = Play(folder, rank, total_steps=None)
    play.trainer.run([batch_of(i) for i in range(3 + 2 * rank)])
    return play.found(batches=play.trainer.engine.batches)


def sampled(rank: int, folder: Path) -> Found:
    """Three epochs of torch's own loader and sampler; what each batch held."""
    x, y = batch_of(0)
    data = TensorDataset(x, y, torch.arange(len(y)))
    loader = DataLoader(data, batch_size=8, sampler=DistributedSampler(data, seed=5))
    seen: list[list[int]] = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        if model.training:
            seen.append(batch[2].tolist())
        return per_sample(model, batch[:2])

    play = Play(folder, rank, loss=loss, plain=True)
    play.trainer.run(loader, steps=6)
    return play.found(seen=seen)


class Counting:
    """A task that notes which of its batches it was asked for."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.measured = 0

    def model(self) -> nn.Module:
        return plain_network()

    def batch(self, index: int) -> Batch:
        self.asked.append(index)
        return batch_of(index)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return per_sample(model, batch)

    def validate(self, model: nn.Module) -> tuple[float, float | None]:
        """Another figure on each rank."""
        self.measured += 1
        return float(dist.get_rank()), 0.5


MADE: list[Counting] = []


def counting() -> Counting:
    """What ``hybrid train tests.engine.ranks:counting`` makes."""
    MADE.append(Counting())
    return MADE[-1]


def task_of_ones_own(rank: int, folder: Path) -> Found:
    """A task trained by what ``hybrid train`` calls."""
    sys.modules["tests.engine.ranks"] = sys.modules["__main__"]
    said: list[Record] = []
    result = run.train(
        "tests.engine.ranks:counting", steps=12, seed=3, run_dir=folder / "run",
        overrides={"validate_every": "6", "threads": "1"}, on_record=lambda record, attempt: said.append(record),
    )  # fmt: skip
    validated = [r.loss for r in said if isinstance(r, ValidationMeasured)]
    return {
        "asked": MADE[-1].asked, "measured": MADE[-1].measured, "validated": validated, "state": result.state,
        "rank": result.rank, "drawn": torch.rand(1),
    }  # fmt: skip


def refused(rank: int, folder: Path) -> Found:
    """What must not begin."""

    def make(**settings: Any) -> None:
        Play(folder / "refused", rank, **settings).trainer.close()

    class FullyShardedDataParallel(nn.Linear):
        """Called like torch's."""

    sparse = nn.Embedding(8, 3, sparse=True)
    return {
        "config": _refusal(lambda: make(full_steps=4 + rank)),
        "shape": _refusal(lambda: make(model=nn.Linear(8, 3 + rank))),
        "optimizer": _refusal(lambda: make(optimizer=lambda ps: torch.optim.AdamW(ps, 1e-3 * (1 + rank)))),
        "steps": _refusal(lambda: make(total_steps=50 + rank)),
        "wrapped": _refusal(lambda: make(model=nn.parallel.DistributedDataParallel(nn.Linear(8, 3)))),
        "sharded": _refusal(lambda: make(model=FullyShardedDataParallel(8, 3))),
        "directory": _refusal(lambda: make(resume=True)),
        "sparse": _refusal(lambda: _one_sparse_step(folder, rank, sparse)),
    }


def _one_sparse_step(folder: Path, rank: int, model: nn.Embedding) -> None:
    play = Play(
        folder / "sparse", rank, model=model, optimizer=lambda ps: torch.optim.SGD(ps, 0.1),
        loss=lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"),
    )  # fmt: skip
    with play.trainer:
        play.step((torch.arange(8), torch.arange(8) % 3))


def _refusal(do: Callable[[], object]) -> str:
    try:
        do()
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def cost(rank: int, folder: Path) -> Found:
    """Only when asked for: a step of the trainer beside one of a plain loop with DistributedDataParallel, in turns.

    Counts processor time, all threads: on a machine with other work the wall clock says how long each waited for it.
    """
    config = resolve({"threads": 1, "batch_size": 64, "warmup_steps": 1}).config
    task = digits.make(config, None, torch.device("cpu"))
    torch.manual_seed(0)
    own, other = task.model(), task.model()
    wrapped = nn.parallel.DistributedDataParallel(other)
    plain = torch.optim.AdamW(other.parameters(), 1e-3)
    trainer = HybridTrainer(
        own, torch.optim.AdamW(own.parameters(), 1e-3), task.loss, config, folder / "run", serve=False, plain=True
    )
    seconds: dict[str, list[float]] = {"trainer": [], "averaging": [], "roll call": [], "plain": []}
    ranks = trainer.engine.ranks
    assert ranks is not None
    for name, method in (("averaging", ranks.average), ("roll call", ranks.roll_call)):
        setattr(ranks, method.__name__, _timed(method, seconds[name]))

    def plain_step(batch: Batch) -> None:
        plain.zero_grad()
        task.loss(wrapped, batch).mean().backward()
        plain.step()

    for i in range(200):
        batch = task.batch(2 * i + rank)
        _timed(trainer.step, seconds["trainer"])(batch)
        _timed(plain_step, seconds["plain"])(batch)
    trainer.close()
    found = {name: statistics.median(each[50:]) * 1e3 for name, each in seconds.items()}
    if rank == 0:
        print("ms of CPU a step (median of 150):", {name: round(ms, 3) for name, ms in found.items()}, flush=True)
    return found


def _timed(do: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    def timed(*given: Any) -> Any:
        start = time.process_time()
        answer = do(*given)
        into.append(time.process_time() - start)
        return answer

    return timed


ACTS: list[tuple[Callable[[int, Path], Found], int, str]] = [
    (training, 2, "training"),
    (adaptive, 2, "adaptive"),
    (unequal_batches, 2, "unequal"),
    (halves, 2, "halves"),
    (whole, 1, "whole"),
    (unused, 2, "unused"),
    (commanded, 2, "commanded"),
    (poisoned, 2, "poisoned"),
    (unlabelled, 2, "unlabelled"),
    (uninterrupted, 2, "uninterrupted"),
    (killed, 2, "killed"),
    (resumed_alone, 1, "killed"),
    (silent, 2, "silent"),
    (resumed, 2, "killed"),
    (disagreeing, 2, "disagreeing"),
    (asked_to_stop, 2, "asked"),
    (asked_in_a_pause, 2, "paused"),
    (uneven, 2, "uneven"),
    (sampled, 2, "sampled"),
    (task_of_ones_own, 2, "task"),
    (refused, 2, "refused"),
]
"""(act, ranks, folder of its run)."""
ONLY_WHEN_ASKED: list[tuple[Callable[[int, Path], Found], int, str]] = [(cost, 2, "cost")]


def main(folder: Path, chosen: list[str]) -> None:
    """Play the acts, all of them or those chosen."""
    torch.set_num_threads(1)
    _imported_for_all()
    ended: dict[str, list[int | None]] = {}
    for act, size, where in [*ACTS, *ONLY_WHEN_ASKED] if chosen else ACTS:
        if not chosen or act.__name__ in chosen:
            (folder / where).mkdir(exist_ok=True)
            (folder / f"{act.__name__}.init").unlink(missing_ok=True)
            ranks = [_forked(act, rank, size, folder, where) for rank in range(size)]
            ended[act.__name__] = [_awaited(pid, time.monotonic() + ACT_S) for pid in ranks]
    (folder / "ended.json").write_text(json.dumps(ended))


def _imported_for_all() -> None:
    """What torch imports when it first trains, once instead of in every rank."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():  # a backward pass would start threads, which a fork loses
        p.grad = torch.zeros_like(p)
    optimizer.step()


def _forked(act: Callable[[int, Path], Found], rank: int, size: int, folder: Path, where: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with _group(act.__name__, rank, size, folder):
            torch.save(act(rank, folder / where), folder / f"{act.__name__}-{rank}.pt")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _group(name: str, rank: int, size: int, folder: Path) -> Iterator[None]:
    if size == 1:
        yield
        return
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/{name}.init",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT_S),
    )
    yield


def _awaited(pid: int, deadline: float) -> int | None:
    """How it ended: an exit code, minus a signal, or None when it had to be killed."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
