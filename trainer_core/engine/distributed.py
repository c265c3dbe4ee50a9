"""Several processes that train one model (torch.distributed): what they tell each other. Knows no files, no phases.

All ranks take the same decisions, because all that decides is the same on all of them:

    measured        gradients, loss, paired tests: averaged or pooled over the ranks before anybody looks at them
    timed           the clock, the predictor's time account: rank 0's
    asked for       commands, stops: told to all, and obeyed at the same boundary
    done once       journal, checkpoints, run directory: by rank 0; what came of it is told to all

Every measured step ends with a roll call, one small all-gather: the ranks compare what they are about to decide from.
"""

import importlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer_core.engine.agreement import check_same_start, disagreement, standing, started_with
from trainer_core.engine.averaging import Averaging, broadcast_tensors
from trainer_core.learning.paired import Paired, moments, pooled_test
from trainer_core.spec.commands import AcceptedCommand
from trainer_core.spec.config import Config
from trainer_core.spec.errors import CheckpointError, ConfigError, RunError, TrainingFailed, UserError, WrongRun

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

if dist.is_available() and not dist.is_initialized():
    # Functions of this module of torch take the group that exists when it is imported as a default argument. Imported
    # later (making an optimizer does it), it would keep the group past destroy_process_group: gloo's threads would
    # outlive the interpreter, and one that lets go of its last tensor then ends the process by SIGABRT.
    importlib.import_module("torch.distributed.nn.functional")

_PIECE = 1 << 26
"""Bytes sent at once."""
_RECENT: deque[tuple[Tensor, ...]] = deque(maxlen=32)
"""What was sent and received last.

A thread of gloo's lets go of a tensor a moment after ``wait``. Had Python let go of it before, the thread would need
the interpreter's lock for that: it would wait for ever while ``destroy_process_group`` holds the lock and waits for the
thread, and after the interpreter's end it would end the process by SIGABRT.
"""
_SMALL = 1 << 16
_ERRORS: dict[str, type[UserError]] = {
    e.__name__: e for e in (CheckpointError, ConfigError, RunError, TrainingFailed, WrongRun)
}


class RankLost(TrainingFailed):
    """Another rank has gone, or did not answer in time."""


class _Message(msgspec.Struct):
    """What rank 0 tells at a boundary without a roll call: its clock, commands, and whether it was asked to stop."""

    now: float
    commands: list[AcceptedCommand]
    stop: bool = False


class _Row(NamedTuple):
    """What each rank says at a roll call; some of it counts from rank 0 only."""

    digest: float
    """CRC-32 of all that decides."""
    ready_seconds: float
    """Its own forward and backward pass, before it waited for anybody."""
    asks_to_stop: float
    last_batch: float
    waiting: float
    """Rank 0: bytes of commands to be told at the coming boundary."""
    now: float
    """Rank 0: Unix seconds."""
    seconds: float
    """Rank 0: of this step."""
    balance: float
    """Rank 0: seconds its predictor may train."""
    expected: float
    """Rank 0: seconds of one unit of that; NaN before there was one."""


class Ranks:
    """The process group as one training run sees it. ``joined`` makes one; a run in a single process has none.

    Every method but ``take`` is a collective: all ranks call it, in the same order. RankLost is raised where one did
    not within the group's timeout.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.time) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._control = _control_device(device)
        self._clock = clock
        self.averaging = Averaging(self.size)
        self.source: Callable[[], Iterable[AcceptedCommand]] = tuple
        """Where rank 0 gets commands."""
        self.now = clock()
        """Rank 0's Unix seconds, as it told them last: commands expire by them."""
        self.stop_asked = False
        """Whether somebody asked this rank to stop; all see it at the next roll call."""
        self.last_batch = False
        """Whether this rank has no batch after the present one."""
        self.stopping: int | None = None
        """The rank that was asked to stop."""
        self.exhausted = False
        """Whether a rank has had its last batch."""
        self.ready_seconds = 0.0
        self.slowest: int | None = None
        """The rank that took longest for its own part of the last step."""
        self.spread_seconds: float | None = None
        """By how much longer than the fastest."""
        self._waiting = b""
        self._told: int | None = None
        """Bytes of commands that the last roll call announced."""

    @classmethod
    def joined(
        cls, model: nn.Module, optimizer: torch.optim.Optimizer, config: Config, others: dict[str, object]
    ) -> "Ranks | None":
        """The ranks of the process group; None when there is none, or this process is alone in it.

        Raises UserError, on every rank, where one of them is started with something else than rank 0.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() < 2:
            return None
        ranks = cls(next((p.device for p in model.parameters()), torch.device("cpu")))
        others = {**others, "the version of torch": torch.__version__}
        own = msgspec.msgpack.encode(started_with(model, optimizer, config, others))
        check_same_start([msgspec.msgpack.decode(each, type=dict[str, str]) for each in ranks.collect(own)])
        return ranks

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    # -- telling ----------------------------------------------------------------------------------------------------

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every rank, by rank; all give equally many."""
        own = torch.tensor(values, dtype=torch.float64, device=self._control)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with _answered():
            dist.all_gather(rows, own)
        _keep(own, *rows)
        return [row.tolist() for row in rows]

    def mean(self, value: float) -> float:
        """Mean over the ranks; NaN where any has NaN."""
        return sum(row[0] for row in self.gather([value])) / self.size

    def collect(self, data: bytes) -> list[bytes]:
        """The bytes of every rank, by rank."""
        sizes = [int(size) for (size,) in self.gather([float(len(data))])]
        own = torch.zeros(max(sizes), dtype=torch.uint8, device=self._control)
        own[: len(data)] = _tensor(data)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with _answered():
            dist.all_gather(rows, own)
        _keep(own, *rows)
        return [_bytes(row[:size]) for row, size in zip(rows, sizes, strict=True)]

    def tell(self, data: bytes = b"") -> bytes:
        """Rank 0's bytes, on every rank."""
        size = torch.tensor([len(data)], dtype=torch.int64, device=self._control)
        with _answered():
            dist.broadcast(size, 0)
        _keep(size)
        return self._tell(data, int(size))

    def _tell(self, data: bytes, size: int) -> bytes:
        """``tell`` where every rank knows the size."""
        whole = _tensor(data).to(self._control) if self.first else torch.empty(0, dtype=torch.uint8)
        if not self.first:
            whole = torch.empty(size, dtype=torch.uint8, device=self._control)
        with _answered():
            for piece in whole.split(_PIECE):
                dist.broadcast(piece, 0)
                _keep(piece)
        return data if self.first else _bytes(whole)

    def as_first(self, do: Callable[[], Any]) -> Any:
        """Rank 0 does it; what came of it is the same on every rank: plain values (see msgspec), or what it raised."""
        error: BaseException | None = None
        answer: dict[str, Any] = {}
        if self.first:
            try:
                answer["value"] = do()
            except Exception as raised:  # whatever it is, nobody must wait for rank 0
                error, answer["error"] = raised, _described(raised)
        told = msgspec.msgpack.decode(self.tell(msgspec.msgpack.encode(answer | {"now": self._clock()})))
        self.now = told["now"]  # saving takes time, and commands that came meanwhile are judged by it
        if error is not None:
            raise error
        if "error" in told:
            raise _raised(*told["error"])
        return told["value"]

    # -- commands ---------------------------------------------------------------------------------------------------

    def take(self) -> list[AcceptedCommand]:
        """Rank 0's commands, on every rank. Right after a roll call that announced none it asks nobody."""
        told, self._told = self._told, None
        if told == 0:
            return []
        if told is None:
            self._fetch()
            data = self.tell(self._waiting or msgspec.msgpack.encode(_Message(self._clock(), [], self.stop_asked)))
        else:
            data = self._tell(self._waiting, told)
        self._waiting = b""
        message = msgspec.msgpack.decode(data, type=_Message)
        self.now = message.now
        if message.stop:
            self.stopping = 0
        return message.commands

    def left_over(self) -> list[AcceptedCommand]:
        """Commands that reached rank 0 and were told to nobody; asks nobody. For the end of a run."""
        self._fetch()
        waiting, self._waiting = self._waiting, b""
        return msgspec.msgpack.decode(waiting, type=_Message).commands if waiting else []

    def _fetch(self) -> None:
        """Rank 0: make what has come ready to be told."""
        commands = list(self.source()) if self.first else []
        if commands:
            earlier = msgspec.msgpack.decode(self._waiting, type=_Message).commands if self._waiting else []
            self._waiting = msgspec.msgpack.encode(_Message(self._clock(), earlier + commands))

    # -- measuring --------------------------------------------------------------------------------------------------

    def paired(self, before_N: Tensor, after_N: Tensor, forwards: float) -> tuple[Paired, float]:
        """The paired test over the samples of all ranks, and the mean of the forward passes that tests took so far.

        Each rank gives the losses (N,) of its own; a small batch is measured whole, so that it costs more passes.
        """
        rows = self.gather([*moments(before_N, after_N).tolist(), forwards])
        return pooled_test([row[:-1] for row in rows]), sum(row[-1] for row in rows) / self.size

    @torch.no_grad()
    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's buffers (running statistics) on every rank, as DistributedDataParallel has it."""
        with _answered():
            broadcast_tensors(list(model.buffers()))

    @torch.no_grad()
    def share_weights(self, model: nn.Module) -> None:
        """Rank 0's parameters and buffers on every rank."""
        with _answered():
            broadcast_tensors([*model.parameters(), *model.buffers()])

    def average(self, tensors: list[Tensor], scalars: Tensor) -> Tensor:
        """Average the gradients of ``tensors`` over the ranks, in place, and return the mean of ``scalars`` (k,)."""
        with _answered():
            return self.averaging.average(tensors, scalars)

    # -- the roll call ----------------------------------------------------------------------------------------------

    def roll_call(self, engine: "Engine", seconds: float) -> float:
        """End a measured step together; returns its seconds as rank 0 counts them.

        Raises TrainingFailed on every rank when they are about to decide from different things.
        """
        self._fetch()
        every = engine.config.training.rank_check_every
        weights = bool(every) and engine.batches % every == 0
        own, digest = standing(engine, weights)
        pace = engine.pace
        expected = float("nan") if pace.expected is None else pace.expected
        asks, last = float(self.stop_asked), float(self.last_batch)
        said = (float(digest), self.ready_seconds, asks, last, float(len(self._waiting)))
        timed = (self._clock(), seconds, pace.balance, expected)
        rows = [_Row(*row) for row in self.gather([*said, *timed])]
        head = rows[0]
        if any(row.digest != head.digest for row in rows):
            raise TrainingFailed(f"step {engine.step_count}: {disagreement(self.collect(own))}")
        self.stopping = next((rank for rank, row in enumerate(rows) if row.asks_to_stop), None)
        self.exhausted = any(row.last_batch for row in rows)
        ready = [row.ready_seconds for row in rows]
        self.slowest, self.spread_seconds = ready.index(max(ready)), max(ready) - min(ready)
        self._told, self.now = int(head.waiting), head.now
        pace.balance, pace.expected = head.balance, None if head.expected != head.expected else head.expected
        return head.seconds


@contextmanager
def _answered() -> Iterator[None]:
    """A collective; says in a sentence when it was left alone in it."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        said = re.sub(r"^\[\S*\] ", "", str(error).strip()).partition("\n")[0].partition(". This is")[0]
        raise RankLost(
            "another rank has gone, or did not answer within the process group's timeout; look for what it said "
            f"itself, and resume the run with all ranks ({said[:300]})"
        ) from error


def _control_device(device: torch.device) -> torch.device:
    """Where small messages live: on the host when the group has a backend for it (gloo), else beside the model."""
    backends = dist.get_backend_config()
    cpu = torch.device("cpu")
    return cpu if device.type == "cpu" or "gloo" in str(backends) or "mpi" in str(backends) else device


def _keep(*tensors: Tensor) -> None:
    if sum(tensor.untyped_storage().nbytes() for tensor in tensors) <= _SMALL:
        _RECENT.append(tensors)


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.cpu().numpy().tobytes())


def _described(error: Exception) -> list[Any]:
    if isinstance(error, OSError):
        return ["OSError", error.errno, error.strerror or str(error), error.filename and str(error.filename)]
    if isinstance(error, UserError):
        kind = next((c.__name__ for c in type(error).__mro__ if c.__name__ in _ERRORS), "UserError")
        return [kind, None, str(error), None]
    return ["RunError", None, f"rank 0 failed: {type(error).__name__}: {error}", None]


def _raised(kind: str, number: int | None, text: str, file: str | None) -> Exception:
    if kind == "OSError":
        return OSError(number, text, file) if number is not None else OSError(text)
    return _ERRORS.get(kind, UserError)(text)
