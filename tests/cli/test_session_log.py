"""The text report: the document's format, measured values only."""

import msgspec
from syrupy.assertion import SnapshotAssertion

from tests.cli.rows import changed, measured, numbered, one_cycle, started
from trainer_core.cli.session_log import STEPS_SHOWN, session_log
from trainer_core.spec.phases import Phase
from trainer_core.telemetry.report import report


def test_the_log_of_a_small_run_reads_as_the_documents_appendix(snapshot: SnapshotAssertion) -> None:
    rows = one_cycle()
    assert session_log(rows, report(rows)) == snapshot


def test_a_long_phase_is_shown_by_its_first_and_last_steps() -> None:
    rows = list(numbered([(float(s), 0, measured(s, Phase.WARMUP, 1.0, s)) for s in range(1, 1001)]))
    lines = [line for line in session_log(rows, report(rows)).splitlines() if line.startswith("Step ") and "|" in line]
    assert len(lines) == STEPS_SHOWN
    assert lines[0].startswith("Step    1 |") and lines[-1].startswith("Step 1000 |")


def test_many_cycles_are_counted_not_printed_unless_all_are_wanted() -> None:
    records = []
    for cycle in range(40):
        step = 2 * cycle + 1
        records += [
            (0.0, 0, changed(step, Phase.CORRECT, Phase.FULL, "x")),
            (0.0, 0, measured(step, Phase.FULL, 1.0, step)),
            (0.0, 0, changed(step + 1, Phase.FULL, Phase.PREDICT, "x")),
            (0.0, 0, measured(step + 1, Phase.PREDICT, 1.0, step)),
        ]
    rows = list(numbered(records))
    short, long = session_log(rows, report(rows)), session_log(rows, report(rows), everything=True)
    assert "[66 more phases; --all prints them]" in short
    assert "more phases" not in long and long.count("FULL TRAIN") == 40


def test_a_loss_that_is_not_a_number_is_printed_as_such() -> None:
    rows = list(numbered([(0.0, 0, measured(1, Phase.PREDICT, float("nan"), 1, predicted_loss=1.0))]))
    said = session_log(rows, report(rows))
    assert "Loss: nan" in said and "Δ" not in said
    assert "Loss gap: not measured (no baseline run)" in said


def test_small_and_large_losses_are_told_and_not_rounded_away() -> None:
    rows = list(numbered([(0.0, 0, measured(s, Phase.FULL, loss, s, grad_norm=2e-4)) for s, loss in enumerate(
        (3.2e-4, 1e30, 0.0, 0.25), 1
    )]))  # fmt: skip
    said = session_log(rows, report(rows))
    for text in ("Loss: 0.00032 | Grad: 0.0002", "Loss: 1e+30", "Loss: 0.000", "Loss: 0.250", "Final loss: 0.250"):
        assert text in said
    small = session_log(rows[:1], report(rows[:1]))
    assert "Final loss: 0.00032" in small


def test_a_loop_that_a_monitor_watches_is_told_without_phases() -> None:
    own = msgspec.structs.replace(started(), own_loop=True)
    rows = list(numbered([(0.0, 0, own), *((0.0, 0, measured(s, Phase.FULL, 1.0, s)) for s in (1, 2))]))
    said = session_log(rows, report(rows))
    assert said.startswith("Step 1-2: TRAINING\n──") and "FULL" not in said and "Cycle" not in said


def test_a_loop_that_tells_of_some_steps_only_says_which_it_reached() -> None:
    own = msgspec.structs.replace(started(), own_loop=True)
    rows = list(numbered([(0.0, 0, own), *((0.0, 0, measured(s, Phase.FULL, 1.0, s)) for s in (10, 20, 30))]))
    assert "Final Statistics (3 steps told, up to step 30):" in session_log(rows, report(rows))
