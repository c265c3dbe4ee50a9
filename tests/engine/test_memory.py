"""Claims about what hybrid training keeps beside weights, gradients and optimizer state; decision 30."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, batch_of
from trainer_core.bench.memory import Census, measure_memory, only_new_tensors
from trainer_core.engine.engine import Engine
from trainer_core.learning.coarse import CoarseWeights
from trainer_core.learning.parameters import Parameters
from trainer_core.spec.commands import CommandState, ForcePhase
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionEnded, PredictionProbed

ADAPTIVE: dict[str, Any] = {"policy": "adaptive", "warmup_stability": 10.0, "confidence_threshold": 0.0}


def test_the_linear_predictor_keeps_three_models_at_most() -> None:
    """Work 1, the snapshot's weights 1, mean slope 1/2, the guard's anchor 1/2."""
    measured = measure_memory("digits", "Linear", 40)
    assert measured.failed is None and measured.models is not None
    assert 2.0 < measured.models < 3.05


def slow(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """A rate at which predictions are kept."""
    return torch.optim.AdamW(parameters, 1e-4)


class ByPhase(Census):
    """The most that was kept while each phase lasted."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.model, engine.optimizer)
        self._engine = engine
        self.found: dict[Phase, float] = {}

    def look(self, *_: Any) -> None:
        self.most = 0
        super().look()
        phase = self._engine.phase
        self.found[phase] = max(self.found.get(phase, 0.0), self.models)


@pytest.mark.parametrize(("share", "in_correct"), [(0.5, 3.0), (1.0, 5.0)])
def test_the_moments_are_copied_only_where_a_probe_leaves_no_samples_for_a_verdict(
    tmp_path: Path, share: float, in_correct: float
) -> None:
    """Looks and PREDICT: work 1, snapshot 1, mean slope 1/2, the guard's anchor 1/2. The moments are CORRECT's."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4000), torch.nn.Tanh(), torch.nn.Linear(4000, 3))
    batches = [batch_of(i) for i in range(40)]
    with only_new_tensors():
        rig = Rig(tmp_path, model=model, optimizer=slow, residual_memory_mb=0.0, probe_share=share, **ADAPTIVE)
        census = ByPhase(rig.engine)
        rig.engine.shares = False  # the activations of a shared pass are those of the step
        with census.watching():
            rig.begin()
            for batch in batches:
                rig.engine.step(batch)
    assert rig.engine.predictions_entered > 1
    assert census.found[Phase.FULL] < 3.05
    assert in_correct - 1.0 < census.found[Phase.CORRECT] < in_correct + 0.05


def test_where_a_probe_leaves_no_samples_the_moments_of_the_tested_predictions_are_copied(tmp_path: Path) -> None:
    """Some are audited, and some arrive at a loss far above the average."""
    scales = dict.fromkeys(range(24, 200, 12), -8.0)
    rig = Rig(tmp_path, steps=10_000, scales=scales, probe_share=1.0, **ADAPTIVE).begin()
    tested: list[bool] = []
    copied: list[bool] = []
    for _ in range(200):
        snapshot, ended = rig.engine.snapshot, len(rig.of(PredictionEnded))
        rig.step()
        tested += [record.loss_before is not None for record in rig.of(PredictionEnded)[ended:]]
        copied += [snapshot is not None and snapshot.optimizer is not None] * (len(tested) - len(copied))
    assert copied == tested
    suspected = sum(tested) - len(range(0, rig.engine.predictions_kept, 8))
    assert len(tested) > 10 and suspected > 0 and not all(tested)


def test_a_verdict_falls_before_the_step_of_correct_and_an_undone_prediction_leaves_nothing(tmp_path: Path) -> None:
    """Its probe says yes, the other half of the batch, of one sample, no: the step is as without it."""
    first = Rig(tmp_path / "first", steps=10_000, **ADAPTIVE).begin()
    first.until(lambda: first.engine.predictions_entered == 1)
    at = first.engine.batches - 1
    x, y = batch_of(at)
    x[16:], y[16:] = x[0], 2
    lured, plain = (Rig(tmp_path / name, steps=10_000, **ADAPTIVE).begin() for name in ("lured", "plain"))
    plain.engine.locked = True
    for rig in (lured, plain):
        for index in range(at):
            rig.engine.step(batch_of(index))
        rig.engine.step((x, y))
    (ended,) = lured.of(PredictionEnded)
    assert not ended.kept and ended.better is False and ended.loss_after is not None
    assert ended.loss_before is not None and ended.loss_after > ended.loss_before
    assert lured.engine.snapshot is None and lured.engine.phase is Phase.CORRECT
    assert torch.equal(lured.weights(), plain.weights())
    moments = [[s["exp_avg"] for s in rig.optimizer.state.values()] for rig in (lured, plain)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True)) and moments[0]


def test_a_settled_prediction_is_kept_whatever_comes(tmp_path: Path) -> None:
    """After a resume there is no batch; begun anew, CORRECT takes a second step, whose loss changes nothing."""
    rig = Rig(tmp_path, steps=10_000, **ADAPTIVE).begin()
    found: set[bool] = set()
    while len(found) < 2:
        rig.until(lambda: rig.engine.flight is not None and rig.engine.flight.settled)
        flight = rig.engine.flight
        assert flight is not None
        tested = flight.verdict is not None
        found.add(tested)
        rig.session.save_checkpoint("cut here")
        for phase in (Phase.FULL, Phase.CORRECT):
            again = Rig(tmp_path, steps=10_000, **ADAPTIVE)
            again.session.resume(0, rig.engine.step_count, "resumed")
            assert again.engine.flight is not None and again.engine.flight.settled
            assert again.engine.flight.verdict == flight.verdict
            again.scales[again.engine.batches] = -50.0
            weights, kept = again.weights(), again.engine.predictions_kept
            assert again.tell(ForcePhase(phase)).state is CommandState.APPLIED
            if phase is Phase.CORRECT:
                again.step()
                assert again.engine.flight is not None and (again.engine.last.loss_deviation or 0.0) > 2.0
                weights = again.weights()
                again.tell(ForcePhase(Phase.FULL))
            assert again.engine.predictions_kept == kept + 1 and torch.equal(again.weights(), weights)
            ended = again.of(PredictionEnded)[-1]
            assert (ended.loss_before is not None) is tested
        rig.step()


def test_a_correction_is_tried_before_the_moments_are_kept(tmp_path: Path) -> None:
    """Else it would lie in memory together with them: 6 models."""
    rig = Rig(tmp_path, similarity_threshold=0.0).begin()
    engine, kept = rig.engine, []

    def note(*_: Any) -> None:
        if engine.phase is Phase.CORRECT and not engine.corrected and engine.snapshot is not None:
            kept.append(engine.snapshot.optimizer is not None)

    rig.model.register_forward_pre_hook(note)
    rig.until_phase(Phase.CORRECT)
    assert kept and not any(kept), "the forward passes that try a correction"
    assert engine.snapshot is not None and engine.snapshot.optimizer is not None


def test_the_census_sees_a_tensor_more() -> None:
    model = torch.nn.Linear(50, 40)
    optimizer = torch.optim.AdamW(model.parameters())
    with only_new_tensors():
        census = Census(model, optimizer)
        census.look()
        before = census.models
        extra = torch.zeros(2 * 2040)
        census.look()
    assert census.models - before == pytest.approx(2.0) and extra.numel() == 4080


def test_coarse_weights_are_off_by_half_a_step_at_most_and_survive_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    parameters = Parameters(model)
    exact = [p.detach().clone() for p in parameters.tensors]
    coarse = CoarseWeights.from_state(CoarseWeights.of(parameters, torch.device("cpu")).state_dict())
    with torch.no_grad():
        for p in parameters.tensors:
            p.zero_()
    coarse.write(parameters)
    for p, w in zip(parameters.tensors, exact, strict=True):
        assert float((p.detach() - w).abs().max()) <= float(w.abs().max()) / 32767 * 0.51


def test_the_graph_of_a_look_is_freed_with_it(tmp_path: Path) -> None:
    """Whether a step uses it or not: a node that holds its own output would keep a look's activations for ever."""
    with only_new_tensors():
        rig = Rig(tmp_path, steps=100_000, **ADAPTIVE).begin()
        for _ in range(120):
            rig.step()
        looks = len(rig.of(PredictionProbed))
        assert rig.engine.shares and looks > 50
        gc.collect()
        of_graphs = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn is not None]
    assert len(of_graphs) <= 2, f"{len(of_graphs)} tensors of graphs after {looks} looks"


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    short, long = (measure_memory("digits", "Linear", steps).models for steps in (30, 90))
    assert short is not None and long == pytest.approx(short, abs=0.1)
