"""The life of a command: accepted once and durably, applied once, or refused with a reason; never guessed."""

import math
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spec.test_checks import BAD, GOOD
from tests.telemetry.examples import step_record
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import answered, dealer, endpoint
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    CommandRequest,
    CommandState,
    Pause,
    Refusal,
    Rollback,
    ScaleLearningRate,
    SetLearningRate,
    SetThreshold,
    danger,
)
from trainer_core.spec.records import AttemptStarted, CommandChanged, Record
from trainer_core.telemetry import keys, wire
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.commands_db import accepted
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.learning_rate import present_learning_rate


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


def test_the_actor_is_the_keys_whatever_a_message_says_of_whom_it_is_for(trainer: Trainer, client: Client) -> None:
    taken = ask(Pause(), on_behalf_of="server")
    refused = ask(SetThreshold("confidence_threshold", 2.0), on_behalf_of="server")
    assert client.send(refused).state is CommandState.REJECTED
    client.send(taken)
    assert client.wait(taken.command_id, 10).actor == "operator"

    def said() -> dict[str, set[tuple[str, str]]]:
        rows = [row.record for row in JournalReader(trainer.run_dir).rows(limit=10**6)]
        changes = [record for record in rows if isinstance(record, CommandChanged)]
        return {id_: {(change.actor, change.on_behalf_of) for change in changes if change.command_id == id_}
                for id_ in (taken.command_id, refused.command_id)}  # fmt: skip

    until(lambda: all(said().values()))
    assert list(said().values()) == [{("operator", "server")}] * 2


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


TENFOLD = [
    (SetLearningRate(0.1), 0.01, "0.01 -> 0.1"),
    (SetLearningRate(0.001), 0.01, "0.01 -> 0.001"),
    (SetLearningRate(0.09), 0.01, None),
    (SetLearningRate(0.0011), 0.01, None),
    (SetLearningRate(0.01), None, "is not known"),
    (SetLearningRate(0.01), math.nan, "is not known"),
    (ScaleLearningRate(10.0), 0.01, "multiplies the learning rate by 10"),
    (ScaleLearningRate(0.1), 0.01, "multiplies the learning rate by 0.1"),
    (ScaleLearningRate(9.9), None, None),
    (ScaleLearningRate(0.11), None, None),
    (ApplyRemedy("nan_loss"), 0.01, "several commands"),
]


@pytest.mark.parametrize(("command", "rate", "why"), TENFOLD, ids=lambda x: repr(x))
def test_a_learning_rate_tenfold_either_way_is_dangerous(command: Command, rate: float | None, why: str | None) -> None:
    found = danger(command, rate)
    assert (found is None) == (why is None)
    assert why is None or (found is not None and why in found)


def test_a_tenfold_learning_rate_waits_for_its_confirmation_and_a_near_one_does_not(
    trainer: Trainer, client: Client
) -> None:
    trainer.say(step_record(2, learning_rate=0.01))
    assert trainer.reporter.flush(10)
    far, near = ask(SetLearningRate(0.1)), ask(SetLearningRate(0.05))
    waits = client.send(far)
    assert waits.state is CommandState.RECEIVED and "0.01 -> 0.1" in waits.detail
    assert accepted(trainer.run_dir) == []
    assert client.send(near).state in (CommandState.ACCEPTED, CommandState.APPLYING, CommandState.APPLIED)
    assert client.confirm(far.command_id).state in (CommandState.ACCEPTED, CommandState.APPLYING, CommandState.APPLIED)
    assert client.wait(far.command_id, 10).state is CommandState.APPLIED
    assert [taken.request for taken in trainer.taken] == [near, far]


def test_the_present_learning_rate_is_what_commands_have_made_of_the_newest_steps(run_dir: Path) -> None:
    def change(command: Command, after: str, state: CommandState = CommandState.APPLIED) -> CommandChanged:
        return CommandChanged(1, None, "c" * 8, command, state, "ann", 1, "0.01", after)

    with Trainer(run_dir, serves=False) as trainer:
        journal = JournalReader(run_dir)
        story: list[tuple[Record, float | None]] = [
            (step_record(1), None),
            (step_record(2, learning_rate=0.01), 0.01),
            (change(SetThreshold("confidence_threshold", 0.5), "0.5"), 0.01),
            (change(ScaleLearningRate(0.5), "", CommandState.REJECTED), 0.01),
            (change(ScaleLearningRate(0.5), "0.005"), 0.005),
            (change(SetLearningRate(0.02), "0.02"), 0.02),
            (change(ApplyRemedy("nan_loss"), "scale-learning-rate -> 0.002"), None),
            (step_record(3, learning_rate=0.002), 0.002),
            (AttemptStarted(1, 1, 0, 3, "step-1", "rolled back"), None),
            (step_record(2, learning_rate=0.001), 0.001),
        ]
        for record, rate in story:
            trainer.say(record)
            assert trainer.reporter.flush(10)
            assert present_learning_rate(journal) == rate, record
        journal.close()


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


def test_no_bad_argument_of_any_command_gets_past_the_socket(trainer: Trainer) -> None:
    """One bad value of each sort for every field; every single value is in tests/spec/test_checks.py."""
    sorts = [(*key, allowed, values[0]) for key, rows in BAD.items() for allowed, values in rows]
    with dealer(trainer.run_dir, "commands", "operator") as socket:
        for number, (kind, field, allowed, value) in enumerate(sorts):
            bad = {"kind": kind, **GOOD[kind], field: value}
            request = {"command_id": f"bad-one-{number:04}", "command": bad}
            body = wire.pack({"ask": "send", "protocol": 1, "token": number, "request": request})
            why = until(lambda body=body: taken(answered(socket, [body])))  # type: ignore[misc]
            assert why is not None and why.startswith(f"{kind}: ") and allowed in why, why
    assert trainer.taken == [] and accepted(trainer.run_dir) == []


def taken(frame: bytes | None) -> str | None:
    """Why a request was refused; None when it came too fast, or was not answered yet."""
    assert frame is not None
    reply = wire.replies.decode(frame)
    if reply.problem is not None:
        return None if "wait a moment" in reply.problem.error else reply.problem.error
    assert reply.status is not None and reply.status.state is CommandState.REJECTED, reply
    return None if reply.status.refusal is Refusal.RATE else reply.status.detail


def test_a_reply_that_was_lost_is_asked_for_again_and_the_command_happened_once(trainer: Trainer) -> None:
    request = ask(SetThreshold("confidence_threshold", 0.9))
    body = wire.pack(wire.Send(token=1, request=request))
    for _ in range(3):
        with dealer(trainer.run_dir, "commands", "operator") as socket:
            socket.send(body)
            until(lambda: accepted(trainer.run_dir))  # it arrived; nobody reads the answer
    with dealer(trainer.run_dir, "commands", "operator") as socket:
        reply = answered(socket, [body])
        status = wire.replies.decode(reply or b"").status
        assert status is not None and status.state not in (None, CommandState.REJECTED)
    until(lambda: life(trainer.run_dir, request.command_id)[-1:] == [CommandState.APPLIED])
    assert [command.request for _, command in accepted(trainer.run_dir)] == [request]
    assert len(trainer.taken) == 1


def test_of_two_operators_who_saw_the_same_state_one_is_obeyed_and_the_other_told(
    trainer: Trainer, client: Client
) -> None:
    keys.create(trainer.run_dir, "ben", "operator")
    first, second = (ask(SetThreshold("confidence_threshold", v), expect_state_rev=0) for v in (0.8, 0.9))
    client.send(first)
    with dealer(trainer.run_dir, "commands", "ben") as socket:
        answered(socket, [wire.pack(wire.Send(token=1, request=second))])
    ends = [client.wait(request.command_id, 10) for request in (first, second)]
    assert [(end.state, end.refusal, end.actor) for end in ends] == [
        (CommandState.APPLIED, None, "operator"),
        (CommandState.REJECTED, Refusal.CONFLICT, "ben"),
    ]
    assert "the run has moved on" in ends[1].detail or "state_rev" in ends[1].detail


def test_one_operators_confirmation_does_not_confirm_anothers_command(trainer: Trainer, client: Client) -> None:
    keys.create(trainer.run_dir, "ben", "operator")
    request = ask(Rollback())
    assert client.send(request).state is CommandState.RECEIVED
    with dealer(trainer.run_dir, "commands", "ben") as socket:
        reply = answered(socket, [wire.pack(wire.Confirm(token=1, command_id=request.command_id))])
        status = wire.replies.decode(reply or b"").status
    assert status is not None and status.state is CommandState.RECEIVED
    assert accepted(trainer.run_dir) == [] and client.confirm(request.command_id).state is not CommandState.RECEIVED
