"""How long a command takes to act on a real training loop. Knows no figure but this one."""

import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from trainer_core.bench_telemetry.results import Delay, delay_of
from trainer_core.spec.commands import CommandRequest, CommandState, SetThreshold
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.follower import Follower

if TYPE_CHECKING:
    from trainer_core.hybrid_trainer import HybridTrainer

PATIENCE_S = 20.0


def command_to_applied(run_dir: Path, commands: int) -> Delay:
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
            measured = [_one_command(trainer, client, follower, 0.5 + i / 100) for i in range(commands)]
        finally:
            ended.set()
            thread.join()
            client.close()
            follower.close()
    taken = [milliseconds for milliseconds, _ in measured]
    return delay_of("command sent -> applied", taken, max(steps for _, steps in measured))


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
