"""Claims about several processes that train one model: equal weights bit for bit, one decision, one journal."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import end_agents
from tests.engine.rig import same
from trainer_core.learning.paired import moments, paired_test, pooled_test
from trainer_core.spec.records import PhaseChanged, RunStarted, RunState, StepRecord
from trainer_core.telemetry.journal import JournalReader

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
LIMIT_S = 280
Found = dict[str, Any]


class Stage:
    """What the ranks of each act found, and how they ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: dict[str, list[int | None]] = json.loads((folder / "ended.json").read_text())

    def found(self, act: str, rank: int) -> Found:
        """What one rank returned."""
        found: Found = torch.load(self.folder / f"{act}-{rank}.pt", weights_only=True)
        return found

    def both(self, act: str) -> tuple[Found, Found]:
        """Both ranks, which ended by themselves."""
        assert self.ended[act] == [0, 0], f"{act} ended with {self.ended[act]}"
        return self.found(act, 0), self.found(act, 1)

    def journal(self, folder: str) -> list[Any]:
        """The records of a run."""
        return [row.record for row in JournalReader(self.folder / folder / "run").last_rows(100_000)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Every act, played once."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-m", "tests.engine.ranks", str(folder)]
    subprocess.run(words, check=True, timeout=LIMIT_S, env=os.environ | {"HYBRID_AGENT_LINGER_S": "0"})
    yield Stage(folder)
    end_agents(folder)


def same_course(one: Found, other: Found) -> None:
    """The same steps with the same numbers and weights, bit for bit."""
    assert same(one["steps"], other["steps"]) and one["steps"]
    assert one["weights"].keys() == other["weights"].keys()
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])


def test_weights_are_equal_after_every_step_of_every_phase(stage: Stage) -> None:
    first, second = stage.both("training")
    same_course(first, second)
    assert {s["phase"] for s in first["steps"]} == {"WARMUP", "FULL", "PREDICT", "CORRECT"}
    assert set(first["kept"]) == {True, False}, "predictions kept and predictions undone"


def test_ranks_with_batches_of_other_sizes_decide_alike(stage: Stage) -> None:
    first, second = stage.both("unequal_batches")
    same_course(first, second)
    assert first["kept"].count(True) > 3


def test_what_a_predictor_learns_by_the_clock_it_learns_on_all_ranks(stage: Stage) -> None:
    first, second = stage.both("adaptive")
    same_course(first, second)
    assert first["units"] == second["units"] > 0
    assert True in first["kept"]


def test_two_halves_of_a_batch_are_the_whole_batch(stage: Stage) -> None:
    first, second = stage.both("halves")
    same_course(first, second)
    whole = stage.found("whole", 0)
    for name, expected in whole["weights"].items():
        assert torch.allclose(first["weights"][name], expected, atol=1e-5)
    for half, one in zip(first["steps"], whole["steps"], strict=True):
        assert half["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert half["snr"] > 0 and one["snr"] is None, "two ranks show how noisy the gradient is, one batch does not"


def test_a_parameter_without_gradient_counts_as_zero_unless_no_rank_has_one(stage: Stage) -> None:
    first, second = stage.both("unused")
    same_course(first, second)
    for found in (first, second):
        assert found["moved"], "rank 1 alone had a gradient for it"
        assert found["never"], "not even weight decay moved it"


def test_commands_to_rank_0_are_obeyed_by_all_at_the_same_step(stage: Stage) -> None:
    first, second = stage.both("commanded")
    same_course(first, second)
    ends = {name: state for name, state, _ in first["commands"]}
    applied = {"lock", "rate", "save", "late", "pause", "rollback", "resume", "stop"}
    assert {name for name, state in ends.items() if state == "applied"} == {f"command-{name}" for name in applied}
    assert ends["command-never"] == "expired" and ends["command-unknown"] == "rejected"
    assert first["outcome"] == second["outcome"] == ("stopped", "stopped by ann")
    assert first["steps"][-1]["attempt"] == 1 and first["steps"][-1]["locked"]
    rates = [s["rate"] for s in first["steps"]]
    assert 1e-3 in rates and rates[-1] == pytest.approx(2e-3)


def test_nan_on_one_rank_rolls_all_of_them_back(stage: Stage) -> None:
    first, second = stage.both("poisoned")
    same_course(first, second)
    broken = [s["step"] for s in second["steps"] if not math.isfinite(s["loss"])]
    assert len(broken) == 1, "the batch that broke came once, and rank 0 saw it too"
    assert first["attempt"] == second["attempt"] == 1
    assert first["scale"] == second["scale"] == pytest.approx(0.1)
    assert all(torch.isfinite(w).all() for w in first["weights"].values())


def test_a_batch_without_labels_on_one_rank_takes_the_loss_of_the_others(stage: Stage) -> None:
    first, second = stage.both("unlabelled")
    same_course(first, second)
    assert first["outcome"][0] == "finished" and first["scale"] == 1.0
    losses = [s["loss"] for s in first["steps"]]
    assert sum(loss is None for loss in losses) == len(losses) // 9
    assert all(loss is None or math.isfinite(loss) for loss in losses)
    assert any(first["kept"])


def test_a_killed_rank_ends_the_others_with_a_sentence(stage: Stage) -> None:
    assert stage.ended["killed"] == [0, -9]
    failure = stage.found("killed", 0)["failure"]
    assert failure.startswith("another rank has gone, or did not answer within the process group's timeout")
    states = [r for r in stage.journal("killed") if isinstance(r, RunState) and r.state == "failed"]
    assert [s.because for s in states] == [failure]


def test_a_silent_rank_is_waited_for_no_longer_than_the_timeout(stage: Stage) -> None:
    first, second = stage.both("silent")
    assert "did not answer within the process group's timeout" in first["failure"]
    assert first["outcome"][0] == "failed" and len(first["steps"]) == len(second["steps"])


def test_a_killed_run_goes_on_to_the_weights_of_an_uninterrupted_one(stage: Stage) -> None:
    first, second = stage.both("resumed")
    same_course(first, second)
    expected, _ = stage.both("uninterrupted")
    assert 0 < first["began"] < 40 and stage.found("killed", 0)["steps"][-1]["step"] > first["began"]
    assert all(torch.equal(first["weights"][n], w) for n, w in expected["weights"].items()), "dropout and all"
    rows = JournalReader(stage.folder / "killed" / "run").last_rows(100_000)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))


def test_a_run_of_two_ranks_is_not_resumed_by_one(stage: Stage) -> None:
    refusal = stage.found("resumed_alone", 0)["refusal"]
    assert "begun by 2 ranks and cannot be resumed by 1: torchrun --nproc-per-node=2" in refusal


def test_one_different_bit_ends_the_run_on_all_ranks(stage: Stage) -> None:
    first, second = stage.both("disagreeing")
    assert first["failure"] == second["failure"]
    assert first["failure"].startswith("step 10: the ranks no longer agree: weights is ")
    assert first["outcome"][0] == second["outcome"][0] == "failed"


def test_a_stop_asked_of_one_rank_stops_all_with_a_checkpoint(stage: Stage) -> None:
    first, second = stage.both("asked_to_stop")
    same_course(first, second)
    assert first["outcome"] == second["outcome"] == ("stopped", "rank 1 was asked to stop")
    assert first["files"][-1] == f"step-{first['steps'][-1]['step']:06d}"


def test_a_stop_asked_in_a_pause_is_not_waited_for(stage: Stage) -> None:
    first, second = stage.both("asked_in_a_pause")
    same_course(first, second)
    assert first["outcome"] == second["outcome"] == ("stopped", "rank 0 was asked to stop")


def test_one_pass_ends_where_the_first_rank_has_no_more(stage: Stage) -> None:
    first, second = stage.both("uneven")
    assert first["batches"] == second["batches"] == 3
    assert first["outcome"] == second["outcome"] == ("finished", "the batches are used up")


def test_torchs_own_sampler_shares_out_every_epoch_anew(stage: Stage) -> None:
    first, second = stage.both("sampled")
    epochs = [sorted(chain(*first["seen"][i : i + 2], *second["seen"][i : i + 2])) for i in (0, 2, 4)]
    assert epochs == [list(range(32))] * 3, "every sample once in each epoch, over both ranks"
    assert first["seen"][:2] != first["seen"][2:4]


def test_each_batch_of_a_task_goes_to_one_rank(stage: Stage) -> None:
    first, second = stage.both("task_of_ones_own")
    assert set(first["asked"]).isdisjoint(second["asked"])
    assert sorted(first["asked"] + second["asked"]) == list(range(len(first["asked"]) * 2))
    assert first["asked"] == list(range(0, 2 * len(first["asked"]), 2))
    assert (first["rank"], second["rank"]) == (0, 1) and first["state"] == second["state"] == "finished"
    assert not torch.equal(first["drawn"], second["drawn"]), "random numbers are each rank's own"
    assert set(first["validated"]) == {0.5}, "the mean of what the ranks measured"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("config", "rank 1 was not started like rank 0: [hybrid_trainer_config] full_steps is 5 there and 4 on rank 0"),
        ("shape", "the model's weight is (4, 8) of torch.float32 there and (3, 8) of torch.float32 on rank 0"),
        ("optimizer", "lr of the optimizer's group 0 is 0.002 there and 0.001 on rank 0"),
        ("steps", "total_steps is 51 there and 50 on rank 0"),
        ("wrapped", "give the module inside it (model.module)"),
        ("sharded", "sharded over processes (FSDP, tensor parallel)"),
        ("directory", "holds no run to resume"),
        ("sparse", "sparse gradients cannot be averaged"),
    ],
)
def test_what_must_not_begin_is_refused_on_every_rank_alike(stage: Stage, what: str, said: str) -> None:
    first, second = stage.both("refused")
    assert said in first[what] and first[what] == second[what]


def test_rank_0_alone_keeps_the_journal_and_says_how_many_they_are(stage: Stage) -> None:
    first, second = stage.both("training")
    assert first["records"] > 100 and second["records"] == 0
    records = stage.journal("training")
    assert [r.world_size for r in records if isinstance(r, RunStarted)] == [2]
    steps = [r for r in records if isinstance(r, StepRecord)]
    assert len(steps) == len(first["steps"]) and any(isinstance(r, PhaseChanged) for r in records)
    assert all(r.slowest_rank in (0, 1) and r.rank_spread_seconds is not None for r in steps)


def test_a_test_pooled_over_ranks_is_the_test_over_all_samples() -> None:
    generator = torch.Generator().manual_seed(3)
    before, after = torch.randn(60, generator=generator) + 5, torch.randn(60, generator=generator) + 4.9
    whole = paired_test(before, after)
    parts = [moments(before[a:b], after[a:b]).tolist() for a, b in ((0, 11), (11, 12), (12, 60))]
    pooled = pooled_test(parts)
    assert (pooled.before, pooled.after, pooled.gain, pooled.standard_error, pooled.z) == pytest.approx(
        (whole.before, whole.after, whole.gain, whole.standard_error, whole.z), rel=1e-4
    )
    broken = moments(before[:11], torch.full((11,), math.nan)).tolist()
    assert pooled_test([parts[2], broken]).z == -6.0


def test_torchrun_trains_a_built_in_task(runs_dir: Path) -> None:
    words = ["train", "digits", "--steps", "60", "--seed", "3", "--set", "checkpoint_every=20"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run(
        [*launcher, "trainer_core", *words, "--run-dir", str(runs_dir / "r")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("finished at step 60") == 1, "rank 0 alone prints"
    records = [row.record for row in JournalReader(runs_dir / "r").last_rows(10_000)]
    assert [r.world_size for r in records if isinstance(r, RunStarted)] == [2]
    assert [r.state for r in records if isinstance(r, RunState)][-1] == "finished"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_the_group_outlives_it(runs_dir: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    subprocess.run([*launcher, "tests.engine.leaving", str(runs_dir)], timeout=LIMIT_S, check=True)
    for rank in range(2):
        found = json.loads((runs_dir / f"threads-{rank}.json").read_text())
        assert len(found["after"]) < len(found["within"]), "the group's threads are seen while it is there"
        assert not any("gloo" in name for name in found["after"]), "torch 2.6 gives them no names"
        assert found["kept"] == [True] * 3, "no thread of the group lets go of a tensor last"
