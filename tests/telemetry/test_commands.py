"""The life of a command: accepted once and durably, applied once, or refused with a reason; never guessed."""

import math
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint
from trainer_core.spec.commands import (
    Command,
    CommandRequest,
    CommandState,
    Pause,
    Refusal,
    Rollback,
    SetLearningRate,
    SetThreshold,
)
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import accepted
from trainer_core.telemetry.journal import JournalReader


def ask(command: Command, **more: object) -> CommandRequest:
    return CommandRequest(uuid.uuid4().hex, command, **more)  # type: ignore[arg-type]


def life(run_dir: Path, command_id: str) -> list[CommandState]:
    rows = JournalReader(run_dir).rows(limit=10**6)
    return [r.record.state for r in rows if isinstance(r.record, CommandChanged) and r.record.command_id == command_id]


@pytest.fixture
def trainer(run_dir: Path) -> Iterator[Trainer]:
    with Trainer(run_dir) as trainer:
        trainer.steps(1)
        client = Client(run_dir)
        until(client.hello)
        client.close()
        yield trainer


@pytest.fixture
def client(trainer: Trainer) -> Iterator[Client]:
    client = Client(trainer.run_dir, role="operator")
    yield client
    client.close()


def test_a_command_is_accepted_and_then_applied_at_a_step_and_the_journal_agrees(
    trainer: Trainer, client: Client
) -> None:
    request = ask(SetThreshold("confidence_threshold", 0.9), reason="too eager")
    assert client.send(request).state in (CommandState.ACCEPTED, CommandState.APPLYING, CommandState.APPLIED)
    status = client.wait(request.command_id, 10)
    assert (status.state, status.step, status.before, status.after) == (CommandState.APPLIED, 1, "0.85", "0.9")
    assert (status.kind, status.actor, status.state_rev) == ("set-threshold", "operator", 1)
    states = life(trainer.run_dir, request.command_id)
    assert states[-3:] == [CommandState.ACCEPTED, CommandState.APPLYING, CommandState.APPLIED]
    assert trainer.taken[0].request == request


def test_the_same_command_sent_three_times_is_applied_once(trainer: Trainer, client: Client) -> None:
    request = ask(Pause())
    for _ in range(3):
        client.send(request)
    assert client.wait(request.command_id, 10).state is CommandState.APPLIED
    assert client.send(request).state is CommandState.APPLIED
    assert life(trainer.run_dir, request.command_id).count(CommandState.APPLIED) == 1
    assert len(trainer.taken) == 1


def test_the_same_id_with_another_body_is_a_conflict_and_changes_nothing(trainer: Trainer, client: Client) -> None:
    request = ask(SetThreshold("confidence_threshold", 0.9))
    client.send(request)
    client.wait(request.command_id, 10)
    other = CommandRequest(request.command_id, SetThreshold("confidence_threshold", 0.1))
    refused = client.send(other)
    assert (refused.state, refused.refusal) == (CommandState.REJECTED, Refusal.CONFLICT)
    assert client.status(request.command_id).state is CommandState.APPLIED
    assert len(trainer.taken) == 1


def test_a_stale_state_rev_is_refused_and_the_present_one_is_told(trainer: Trainer, client: Client) -> None:
    first = ask(Pause(), expect_state_rev=0)
    client.send(first)
    assert client.wait(first.command_id, 10).state_rev == 1
    refused = client.send(ask(SetThreshold("confidence_threshold", 0.9), expect_state_rev=0))
    if refused.state is None or not refused.state.final:
        refused = client.wait(refused.command_id, 10)
    assert (refused.state, refused.refusal) == (CommandState.REJECTED, Refusal.CONFLICT)
    assert "1" in refused.detail


@pytest.mark.parametrize(
    "command",
    [
        SetThreshold("confidence_threshold", 1.5),
        SetThreshold("confidence_threshold", math.nan),
        SetThreshold("confidence_threshold", math.inf),
        SetThreshold("no_such_setting", 1.0),
        SetThreshold("batch_size", 8),
        SetLearningRate(-1.0),
        SetLearningRate(math.nan),
        SetLearningRate(math.inf),
    ],
    ids=repr,
)
def test_values_out_of_bounds_are_refused_before_the_trainer_hears_of_them(
    trainer: Trainer, client: Client, command: Command
) -> None:
    refused = client.send(ask(command))
    assert (refused.state, refused.refusal) == (CommandState.REJECTED, Refusal.SCHEMA)
    assert refused.detail
    assert trainer.taken == []


def test_a_dangerous_command_waits_for_its_confirmation(trainer: Trainer, client: Client) -> None:
    request = ask(Rollback())
    assert client.send(request).state is CommandState.RECEIVED
    assert client.status(request.command_id).state is CommandState.RECEIVED
    assert accepted(trainer.run_dir) == []
    assert client.send(request, confirm=True).state in (
        CommandState.ACCEPTED,
        CommandState.APPLYING,
        CommandState.APPLIED,
    )
    assert client.wait(request.command_id, 10).state is CommandState.APPLIED
    assert len(trainer.taken) == 1


def test_confirming_at_once_takes_both_messages(trainer: Trainer, client: Client) -> None:
    request = ask(Rollback())
    client.send(request, confirm=True)
    assert client.wait(request.command_id, 10).state is CommandState.APPLIED


def test_accepted_means_durable_even_if_the_agent_is_killed_the_next_moment(run_dir: Path) -> None:
    with Trainer(run_dir, obeys=False) as trainer:
        client = Client(run_dir)
        until(client.hello)
        pid = endpoint(run_dir)["pid"]
        request = ask(SetThreshold("confidence_threshold", 0.9))
        assert client.send(request).state is CommandState.ACCEPTED
        os.kill(pid, signal.SIGKILL)
        assert [command.request for _, command in accepted(run_dir)] == [request]
        until(lambda: trainer.obey() or trainer.taken)
        assert trainer.taken[0].request == request
        status = client.wait(request.command_id, 20)
        assert status.state is CommandState.APPLIED
        client.close()


def test_a_command_nobody_applied_in_time_expires(run_dir: Path) -> None:
    with Trainer(run_dir, obeys=False) as trainer:
        client = Client(run_dir)
        until(client.hello)
        request = ask(Pause(), ttl_s=0.2)
        client.send(request)
        sent = time.time()
        until(lambda: time.time() > sent + 0.3)
        until(lambda: trainer.obey() or trainer.taken)
        assert client.wait(request.command_id, 10).state is CommandState.EXPIRED
        client.close()


def test_a_finished_run_refuses_commands_and_says_why(run_dir: Path) -> None:
    trainer = Trainer(run_dir)
    client = Client(run_dir)
    until(client.hello)
    trainer.end()
    refused = until(lambda: (status := client.send(ask(Pause()))).state is CommandState.REJECTED and status)
    assert refused.refusal is Refusal.RUN  # type: ignore[union-attr]
    assert "finished" in refused.detail  # type: ignore[union-attr]
    assert accepted(run_dir) == []
    client.close()


def test_a_flood_is_slowed_by_refusals_not_by_a_fall(trainer: Trainer, client: Client) -> None:
    statuses = [client.send(ask(Pause())) for _ in range(80)]
    assert {status.refusal for status in statuses} == {None, Refusal.RATE}
    assert any(status.state is not CommandState.REJECTED for status in statuses)
    assert client.hello()


def test_no_answer_is_unknown_never_failed(run_dir: Path) -> None:
    Trainer(run_dir, serves=False).end()
    client = Client(run_dir)
    request = ask(Pause())
    assert client.send(request).state is None
    assert client.status(request.command_id).state is None
    assert client.wait(request.command_id, 0.2).state is None
    client.close()


def test_a_viewers_key_cannot_command(trainer: Trainer) -> None:
    viewer = Client(trainer.run_dir, role="viewer")
    assert viewer.hello()
    status = viewer.send(ask(Pause()))
    assert status.state is None or (status.state, status.refusal) == (CommandState.REJECTED, Refusal.AUTH)
    viewer.close()
    assert trainer.taken == [] and accepted(trainer.run_dir) == []
