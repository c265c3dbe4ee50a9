"""A remedy that raises the learning rate says what in its run speaks against it."""

from typing import Any

from app.screens.alerts import _remedy_text
from app.store import Snapshot
from app.views.alerts import alerts
from app.views.remedy import plan
from tests.app.rows import Script
from tests.app.test_views import seen
from trainer_core.spec.commands import ScaleLearningRate
from trainer_core.spec.records import AlertRaised, AlertResolved
from trainer_core.spec.severity import Severity

UP, DOWN = (ScaleLearningRate(2.0),), (ScaleLearningRate(0.5),)


def raised(step: int, rule: str, commands: tuple[ScaleLearningRate, ...], **more: Any) -> AlertRaised:
    severity = more.get("severity", Severity.WARNING)
    remedy = "loss_plateau" if commands is UP else "oscillation"
    return AlertRaised(step, f"id-{rule}", rule, severity, "x", 2.0, 1.0, "message", remedy, commands, "a cause")


def doubts(snapshot: Snapshot) -> dict[str, str]:
    """What each alert's line says after "but"."""
    return {alert.said.split(":")[0]: alert.detail.partition(" · but: ")[2] for alert in alerts(snapshot)}


def stepped(*said: AlertRaised | AlertResolved) -> Snapshot:
    script = Script().start().steps(20)
    for record in said:
        script.say(record)
    return seen(script)


def test_a_plateau_beside_an_open_alert_that_asks_for_less_says_so_everywhere() -> None:
    snapshot = stepped(raised(10, "ratio", DOWN), raised(15, "plateau", UP))
    said = "ratio is open and asks for a lower learning rate, not a higher one"
    assert doubts(snapshot) == {"plateau": said, "ratio": ""}, "the careful one is not doubted"
    found = plan(snapshot, "loss_plateau")
    assert found is not None and found.against == said and f"But: {said}." in _remedy_text(found)
    slower = plan(snapshot, "oscillation")
    assert slower is not None and slower.against == ""


def test_a_plateau_after_a_critical_alert_that_asked_for_less_names_it() -> None:
    over = AlertResolved(4, "id-grad_norm", "grad_norm", "gone")
    critical = raised(3, "grad_norm", DOWN, severity=Severity.CRITICAL)
    snapshot = stepped(critical, over, raised(15, "plateau", UP))
    assert doubts(snapshot)["plateau"] == "grad_norm was critical at step 3, and asked for a lower learning rate"
    mild = stepped(raised(3, "grad_norm", DOWN), over, raised(15, "plateau", UP))
    assert doubts(mild)["plateau"] == "", "what was mild and is over does not count"


def test_a_plateau_alone_is_not_doubted() -> None:
    assert doubts(stepped(raised(15, "plateau", UP))) == {"plateau": ""}
