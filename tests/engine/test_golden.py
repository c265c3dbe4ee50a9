"""Claims about whole short runs: seeded, in float64, they take the same decisions at the same losses as ever.

``golden.json`` holds phases, steps and losses. A change of policy changes it, and should say so: after looking at the
difference, ``python -m tests.engine.test_golden`` writes it anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, batch_of
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PhaseChanged, StepRecord

GOLDEN = Path(__file__).with_name("golden.json")
RUNS: dict[str, dict[str, Any]] = {
    "document": {"policy": "document"},
    "adaptive": {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.8},
    "window slope": {"policy": "adaptive", "direction": "window", "confidence_threshold": 0.6},
    "MLP": {"policy": "document", "predictor_config": {"type": "MLP", "predictor_train_every": 1}},
}


def digest(folder: Path, name: str) -> dict[str, Any]:
    """What a run decided, and at which losses."""
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    rig = Rig(folder, model=model, clock=lambda: 0.0, steps=10_000, **RUNS[name])
    rig.begin()
    for i in range(60):
        x, y = batch_of(i)
        rig.engine.step((x.double(), y))
        rig.session.after_step()
    changes = [f"{c.step} {c.from_phase.value} -> {c.to_phase.value}" for c in rig.of(PhaseChanged)]
    losses = [r.loss for r in rig.of(StepRecord)]
    return {"step": rig.engine.step_count, "changes": changes, "losses": losses[::6]}


@pytest.mark.parametrize("name", RUNS)
def test_a_seeded_run_is_what_it_was(tmp_path: Path, name: str) -> None:
    expected = json.loads(GOLDEN.read_text())[name]
    found = digest(tmp_path, name)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert (found["step"], found["changes"]) == (expected["step"], expected["changes"])


def test_the_golden_runs_go_through_every_phase() -> None:
    seen = {word for run in json.loads(GOLDEN.read_text()).values() for c in run["changes"] for word in c.split()}
    assert {phase.value for phase in Phase} <= seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: digest(Path(scratch) / name, name) for name in RUNS}
    GOLDEN.write_text(json.dumps(runs, indent=1) + "\n")
