"""The Phases page in states that are seldom seen."""

from app.figures import phases_charts as charts
from app.views.lifecycle import lifecycle
from app.views.phases_all import phases
from app.views.phases_full import full
from app.views.phases_machine import machine
from app.views.phases_predict import predict
from app.views.phases_trust import trust
from app.views.phases_warmup import warmup
from tests.app.rows import Script
from tests.app.test_phases_page import calibrated, full_cycle
from tests.app.test_views import seen
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionEnded, ReliabilityBin


def test_predictions_that_were_kept_without_a_step_of_full_between_are_not_denied() -> None:
    script = Script().start().steps(5)
    for _ in range(3):
        script.enter(Phase.FULL, 0)
        script.enter(Phase.PREDICT, 10)
        script.stretch(10)
        script.enter(Phase.CORRECT, 1)
        script.steps(1)
        script.say(PredictionEnded(script.step, script.cycle, True, 10, "not measured again", None, None, 0.9, None))
    snapshot = seen(script)
    shown = predict(snapshot, machine(snapshot, Config()).standings[Phase.PREDICT])
    assert shown.cost.kept == 3 and "No prediction" not in shown.cost.said
    assert shown.cost.said == "Without one there is nothing to compare a predicted step with."
    assert full(snapshot).said.startswith("entered 3×") and full(snapshot).compute_of == "no FULL step"
    assert lifecycle(snapshot).nodes[Phase.FULL].tally == "no step of its own"


def test_a_warmup_of_which_nothing_is_left_says_where_it_went() -> None:
    script = Script().start().steps(3)
    script.roll_back(0, "gradient extreme")
    script.enter(Phase.FULL, 10)
    script.steps(5)
    snapshot = seen(script)
    found = warmup(snapshot, Config())
    assert found.progress == "rolled back: 3 steps"
    assert charts.warmup_loss(snapshot, found).caption == "rolled back: 3 steps"
    (said,) = charts.warmup_gradient(snapshot, found).layout["annotations"]
    assert said["text"] == "rolled back: 3 steps"
    fresh = seen(Script().start())
    assert charts.warmup_loss(fresh, warmup(fresh, Config())).caption == "no step yet"


def test_words_beside_a_point_are_cut_by_no_edge_of_their_chart() -> None:
    snapshot = seen(full_cycle())
    (entered,) = [t for t in charts.prediction_confidence(snapshot, phases(snapshot)).traces if t["name"] == "entered"]
    assert entered["textposition"] == "bottom right"
    found = trust(calibrated(ReliabilityBin(4, 4, 0.97)))
    (counts,) = [t for t in charts.reliability(found).traces if t["name"] == "outcomes"]
    assert counts["textposition"] == ["bottom left"]
