"""Claims about the lives of alerts: nothing is lost that is open, and memory does not grow with what is over."""

import msgspec

from app.alert_log import MOST_RESOLVED
from app.store import Snapshot, Store
from tests.app.rows import Script
from trainer_core.spec.commands import AcknowledgeAlert, CommandState, SilenceAlert
from trainer_core.spec.records import AlertRaised, AlertResolved
from trainer_core.spec.severity import Severity


def alert(step: int, alert_id: str = "alert-1-1", rule: str = "gradient norm", worst: bool = False) -> AlertRaised:
    severity = Severity.CRITICAL if worst else Severity.WARNING
    return AlertRaised(step, alert_id, rule, severity, "grad_norm", 40.0, 10.0, "gradient norm 40 is past its limit")


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


def test_an_alert_is_open_until_it_is_resolved_and_keeps_the_step_it_began_at() -> None:
    script = Script().start().steps(10)
    script.say(alert(5))
    script.say(alert(9, worst=True))
    log = seen(script).side.alerts
    assert [(life.first_step, life.raised.severity, life.resolved) for life in log.open] == [
        (5, Severity.CRITICAL, None)
    ]
    assert log.critical is not None and log.critical.raised.step == 9 and log.count == 1
    script.say(AlertResolved(10, "alert-1-1", "gradient norm", "healthy"))
    log = seen(script).side.alerts
    assert log.open == () and [life.resolved and life.resolved.step for life in log.resolved] == [10]


def test_an_acknowledgement_is_asked_for_first_and_given_when_the_run_says_so() -> None:
    script = Script().start().steps(10)
    script.say(alert(5))
    states = []
    for state in (CommandState.ACCEPTED, CommandState.APPLIED, CommandState.ACCEPTED):
        script.command(AcknowledgeAlert("alert-1-1"), state)
        (life,) = seen(script).side.alerts.open
        assert life.acknowledged is not None
        states.append(life.acknowledged.state)
    assert states == [CommandState.ACCEPTED, CommandState.APPLIED, CommandState.APPLIED], "what was done stays done"


def test_a_refused_silence_silences_nothing() -> None:
    script = Script().start().steps(10)
    script.command(SilenceAlert("plateau", 100), CommandState.REJECTED)
    assert seen(script).side.alerts.silent_until("plateau") is None
    script.command(SilenceAlert("plateau", 100), CommandState.APPLIED)
    assert seen(script).side.alerts.silent_until("plateau") == 110


def test_a_worse_rung_is_news_once_and_a_lesser_one_is_none() -> None:
    script = Script().start().steps(10)
    script.say(alert(4, "alert-1-1"))
    assert seen(script).side.alerts.critical is None
    script.say(alert(5, "alert-1-1", worst=True))
    first = seen(script).side.alerts.critical
    script.say(msgspec.structs.replace(alert(6, "alert-1-1", worst=True), value=50.0))
    assert seen(script).side.alerts.critical == first


def test_ten_thousand_alerts_that_are_over_cost_no_more_than_two_hundred() -> None:
    script = Script().start().steps(10)
    for number in range(10_000):
        script.say(alert(number, f"alert-1-{number}"))
        if number:
            script.say(AlertResolved(number, f"alert-1-{number}", "gradient norm", "healthy"))
    log = seen(script).side.alerts
    assert (len(log.open), len(log.resolved), log.count) == (1, MOST_RESOLVED, 10_000)
    assert log.resolved[-1].raised.alert_id == "alert-1-9999", "the newest are kept"
