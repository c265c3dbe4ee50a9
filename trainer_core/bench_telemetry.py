"""What telemetry costs and how fast it is, measured here and now, every ratio within one run. Knows no recorded figure.

Three questions: what one record costs the training thread (beside TensorBoard's forty calls), how long a record takes
to a client, and how long a command takes to act on a training loop.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import json as json_format
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainer_core.spec.commands import CommandRequest, CommandState, SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CommandChanged, StepRecord
from trainer_core.telemetry.agent_process import start_agent
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.rundir import claim

if TYPE_CHECKING:
    from trainer_core.hybrid_trainer import HybridTrainer

RECORDS = 3000
WARM_UP = 200
ROUNDS = 6
"""The two writers take turns this often, so that a disturbance meets both."""
TENSORBOARD_STEPS = 300
ADD_SCALARS = 40
LAYERS = 24
SENT_RECORDS = 200
COMMANDS = 20
PATIENCE_S = 20.0
_WORK = bytes(500_000)


class Cost(msgspec.Struct, frozen=True):
    """Time of one record in the training thread, microseconds."""

    what: str
    measured: int
    p50_us: float
    p99_us: float


class Delay(msgspec.Struct, frozen=True):
    """Time from one process to another and, for commands, how many steps were taken meanwhile."""

    what: str
    measured: int
    p50_ms: float
    p95_ms: float
    most_steps: int | None = None


class Figures(msgspec.Struct, frozen=True):
    """Everything one run of the benchmark measured."""

    record: Cost
    tensorboard: Cost | None
    """None: tensorboard is not installed."""
    times_cheaper: float | None
    """tensorboard.p50 / record.p50; None without tensorboard."""
    record_to_client: Delay
    command_to_applied: Delay | None
    """None: torch is not installed, so there is no training loop to steer."""
    lost: int


def run(json: bool = False) -> None:
    """Measure, and print a table, or one JSON document."""
    with tempfile.TemporaryDirectory(prefix="hybrid-bench-") as folder:
        figures = measure(Path(folder))
    if json:
        print(json_format.dumps(msgspec.to_builtins(figures), indent=2))
    else:
        print("\n".join(_table(figures)))


def measure(folder: Path) -> Figures:
    """All three measurements, in run directories under ``folder``."""
    record, tensorboard, lost = step_thread_cost(folder)
    return Figures(
        record=record,
        tensorboard=tensorboard,
        times_cheaper=tensorboard.p50_us / record.p50_us if tensorboard is not None else None,
        record_to_client=record_to_client(folder / "delay"),
        command_to_applied=command_to_applied(folder / "commands") if _installed("torch") else None,
        lost=lost,
    )


def a_record(step: int, vector: tuple[float, ...]) -> StepRecord:
    """A FULL step with every field measured: built as the trainer builds it, from numbers at hand."""
    x = 1.0 / (1.0 + step)
    return StepRecord(
        step=step,
        batch=step,
        phase=Phase.FULL,
        cycle=step // 50,
        step_in_phase=step % 50 + 1,
        phase_budget=50,
        loss=x,
        loss_ema=x,
        loss_sigma=x,
        loss_deviation=x,
        predicted_loss=x,
        predicted_low=x,
        predicted_high=x,
        prediction_error=x,
        relative_error=x,
        confidence=x,
        grad_norm=x,
        grad_norm_baseline=x,
        grad_param_ratio=x,
        grad_variance=x,
        update_norm=x,
        update_norm_baseline=x,
        param_norm=x,
        learning_rate=x,
        sign_changes=1,
        step_seconds=x,
        forward_seconds=x,
        backward_seconds=x,
        optimizer_seconds=x,
        predict_seconds=x,
        backward_passes=step,
        layer_grad_norms=vector,
    )


def step_thread_cost(folder: Path) -> tuple[Cost, Cost | None, int]:
    """One record beside forty ``add_scalar`` calls, in turns; and how many records were lost."""
    ours, theirs = list[int](), list[int]()
    (folder / "cost").mkdir()
    with contextlib.closing(claim(folder / "cost")):
        reporter = Reporter(folder / "cost")
        scalars = _tensorboard(folder / "tensorboard")
        vector = tuple(1.0 / (i + 1) for i in range(LAYERS))
        steps = itertools.count(1)

        def report() -> None:
            reporter.report(a_record(next(steps), vector), 0)

        try:
            _timed(report, WARM_UP)
            for _ in range(ROUNDS):
                ours += _timed(report, RECORDS // ROUNDS)
                if scalars is not None:
                    theirs += _timed(scalars, TENSORBOARD_STEPS // ROUNDS)
            reporter.flush(PATIENCE_S)
            lost = reporter.lost
        finally:
            reporter.close()
    count = sum(1 for f in msgspec.structs.fields(StepRecord) if f.name not in ("phase", "layer_grad_norms"))
    cost = _cost(f"one StepRecord ({count} scalars + {LAYERS}-vector)", ours)
    return cost, _cost(f"{ADD_SCALARS} SummaryWriter.add_scalar", theirs) if theirs else None, lost


def _timed(act: Callable[[], None], times: int) -> list[int]:
    """Nanoseconds of each call. Between calls works something that lets go of the GIL, as a tensor operation does."""
    taken = []
    for _ in range(times):
        hashlib.sha256(_WORK).digest()
        start = time.perf_counter_ns()
        act()
        taken.append(time.perf_counter_ns() - start)
    return taken


def _tensorboard(folder: Path) -> Callable[[], None] | None:
    if not (_installed("torch") and _installed("tensorboard")):
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    names = [f"signal/{i}" for i in range(ADD_SCALARS)]
    steps = itertools.count(1)

    def add() -> None:
        step = next(steps)
        for name in names:
            writer.add_scalar(name, 0.5, step)

    return add


def record_to_client(run_dir: Path) -> Delay:
    """From ``report`` to a follower's hands: through journal, agent and socket."""
    run_dir.mkdir()
    with contextlib.closing(claim(run_dir)):
        reporter = Reporter(run_dir)
        agent = start_agent(run_dir)
        follower = Follower(run_dir)
        try:
            reporter.report(a_record(0, ()), 0)
            ends = time.monotonic() + PATIENCE_S
            while follower.heartbeat is None and time.monotonic() < ends:
                follower.poll(0.1)
            taken = _delays(reporter, follower)
        finally:
            follower.close()
            reporter.close()
            agent.close()
    return _delay("record -> client", taken)


def _delays(reporter: Reporter, follower: Follower) -> list[float]:
    """Milliseconds a record. One thread reports, every 13 ms; this one follows."""

    def report() -> None:
        for step in range(1, SENT_RECORDS + 1):
            time.sleep(0.013)
            reporter.report(a_record(step, ()), 0)

    thread = threading.Thread(target=report, name="bench reporter")
    thread.start()
    taken: list[float] = []
    ends = time.monotonic() + PATIENCE_S
    while len(taken) < SENT_RECORDS and time.monotonic() < ends:
        rows = follower.poll(0.1)
        now = time.time()
        taken += [(now - row.time) * 1e3 for row in rows if isinstance(row.record, StepRecord) and row.record.step > 0]
    thread.join()
    if len(taken) < SENT_RECORDS:
        raise RuntimeError(f"{SENT_RECORDS - len(taken)} of {SENT_RECORDS} records did not reach the client")
    return taken


def command_to_applied(run_dir: Path) -> Delay:
    """From ``Client.send`` to the row that says APPLIED, against a real loop with steps of some milliseconds."""
    trainer, batch = _trainer(run_dir)
    ended = threading.Event()

    def train() -> None:
        while not ended.is_set():
            trainer.step(batch)

    with trainer:
        follower = Follower(run_dir)
        client = Client(run_dir, role="operator")
        thread = threading.Thread(target=train, name="bench trainer")
        thread.start()
        try:
            _await_agent(client)
            measured = [_one_command(trainer, client, follower, 0.5 + i / 100) for i in range(COMMANDS)]
        finally:
            ended.set()
            thread.join()
            client.close()
            follower.close()
    taken = [milliseconds for milliseconds, _ in measured]
    return _delay("command sent -> applied", taken, max(steps for _, steps in measured))


def _await_agent(client: Client) -> None:
    ends = time.monotonic() + PATIENCE_S
    while client.hello() is None:
        if time.monotonic() > ends:
            raise RuntimeError(f"no agent answered within {PATIENCE_S:g} s")
        time.sleep(0.05)


def _one_command(trainer: "HybridTrainer", client: Client, follower: Follower, threshold: float) -> tuple[float, int]:
    """(milliseconds, steps taken meanwhile) of one command that was applied."""
    request = CommandRequest(uuid.uuid4().hex, SetThreshold("confidence_threshold", threshold))
    at, sent = trainer.step_count, time.time()
    answer = client.send(request)
    if answer.state is None:
        raise RuntimeError("the agent did not answer a command")
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        for row in follower.poll(0.1):
            change = row.record
            if isinstance(change, CommandChanged) and change.command_id == request.command_id and change.state.final:
                if change.state is not CommandState.APPLIED:
                    raise RuntimeError(f"a command was {change.state}: {change.detail}")
                return (row.time - sent) * 1e3, change.step - at
    raise RuntimeError(f"a command was not applied within {PATIENCE_S:g} s")


def _trainer(run_dir: Path) -> "tuple[HybridTrainer, tuple[object, object]]":
    import torch
    from torch import nn

    from trainer_core.hybrid_trainer import HybridTrainer

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
    batch = (torch.randn(256, 256), torch.randint(0, 10, (256,)))
    config = {"checkpoint": {"checkpoint_every": 0}, "training": {"validate_every": 0, "device": "cpu"}}
    return HybridTrainer(model, torch.optim.AdamW(model.parameters()), nn.CrossEntropyLoss(), config, run_dir), batch


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _cost(what: str, nanoseconds: Sequence[int]) -> Cost:
    microseconds = [n / 1e3 for n in nanoseconds]
    return Cost(what, len(microseconds), _percentile(microseconds, 50), _percentile(microseconds, 99))


def _delay(what: str, milliseconds: Sequence[float], most_steps: int | None = None) -> Delay:
    return Delay(what, len(milliseconds), _percentile(milliseconds, 50), _percentile(milliseconds, 95), most_steps)


def _table(figures: Figures) -> list[str]:
    lines = [f"{'training thread, microseconds':<44}{'p50':>10}{'p99':>10}"]
    for cost in (figures.record, figures.tensorboard):
        if cost is not None:
            lines.append(f"{cost.what:<44}{cost.p50_us:>10.1f}{cost.p99_us:>10.1f}")
    if figures.times_cheaper is None:
        lines.append("tensorboard is not installed: pip install tensorboard to compare")
    else:
        lines.append(f"{'times cheaper, at the median':<44}{figures.times_cheaper:>10.1f}")
    lines += ["", f"{'between processes, milliseconds':<44}{'p50':>10}{'p95':>10}"]
    for delay in (figures.record_to_client, figures.command_to_applied):
        if delay is not None:
            lines.append(f"{delay.what:<44}{delay.p50_ms:>10.1f}{delay.p95_ms:>10.1f}")
    if figures.command_to_applied is None:
        lines.append("torch is not installed: no training loop to send commands to")
    else:
        lines.append(f"{'most steps from sent to applied':<44}{figures.command_to_applied.most_steps:>10}")
    lines.append(f"{'records lost':<44}{figures.lost:>10}")
    return lines
