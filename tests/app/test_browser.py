"""End to end: a real training run, the real dashboard process, a real browser."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.conftest import Dashboard, Process, train, until
from tests.app.rows import Script, cycled
from tests.conftest import end_agents
from trainer_core.spec.commands import CommandState, ForcePhase, Rollback, SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CheckpointSaved,
    CommandChanged,
    Record,
    RunState,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.telemetry.journal import JournalReader

WIDE = '{"xaxis.range[0]": -1e300, "xaxis.range[1]": 1e300}'
PHASES_LIT = "[...document.querySelectorAll('.hy-node.on, .hy-node.flash')].map(node => node.dataset.phase)"
"""The present phase, and phases that came and went between two looks."""
RANGES = """['loss', 'confidence', 'gradient'].map(name =>
    document.querySelector(`[data-figure=${name}] .hy-plot`)._fullLayout.xaxis.range.map(Math.round).join(' '))"""
REVISION = "Number(document.querySelector('[data-figure=loss]').dataset.revision ?? 0)"
DRAWN = "[...document.querySelectorAll('[data-figure]')].map(section => 'revision' in section.dataset)"
POINTED = (
    """[...document.querySelectorAll('[data-figure] .hoverlayer')].filter(layer => layer.children.length).length"""
)
expect.set_options(timeout=15_000)


def records(run_dir: Path) -> list[Record]:
    reader, found, after = JournalReader(run_dir), [], 0
    while rows := reader.rows(after_seq=after, limit=2000):
        found += [row.record for row in rows]
        after = rows[-1].seq
    return found


def ready(page: Page) -> Page:
    page.wait_for_selector("[data-figure=loss][data-revision]", timeout=30_000)
    return page


def commands(page: Page) -> Locator:
    """The list of commands; narrow windows show the newest one a second time, above."""
    return page.get_by_test_id("hy-commands")


def strip_step(page: Page) -> int:
    return int((page.text_content('[data-bind="strip.step"]') or "0").replace(",", ""))


def now_step(page: Page) -> int:
    """The step that the Control page says the run is at."""
    said = re.search(r"step ([\d,]+)", page.get_by_test_id("hy-now").text_content() or "")
    return int(said[1].replace(",", "")) if said else 0


def redrawn(page: Page, times: int) -> None:
    was = page.evaluate(REVISION)
    until(lambda: page.evaluate(REVISION) >= was + times, 30, f"{times} refreshes")


def applied(run_dir: Path, kind: type) -> CommandChanged:
    def find() -> CommandChanged | None:
        changes = [r for r in records(run_dir) if isinstance(r, CommandChanged) and isinstance(r.command, kind)]
        return next((c for c in changes if c.state is CommandState.APPLIED), None)

    found = until(find, 20, f"{kind.__name__} is applied")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dashboard]]:
    """One real run and one dashboard for the tests that neither ends."""
    folder = tmp_path_factory.mktemp("live")
    trainer = train(folder / "runs" / "live", folder / "train.log")
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield folder / "runs" / "live", dashboard
    dashboard.end()
    trainer.end()
    end_agents(folder)


def test_the_diagram_follows_the_run(live: tuple[Path, Dashboard], open_page: Callable[..., Page]) -> None:
    page = ready(open_page(live[1].url))
    seen: set[str] = set()

    def gather() -> bool:
        seen.update(page.evaluate(PHASES_LIT))
        return {"FULL", "PREDICT", "CORRECT"} <= seen

    until(gather, 90, "the diagram shows the whole cycle")
    before = strip_step(page)
    until(lambda: strip_step(page) > before, 10, "the strip moves on")
    expect(page.locator('[data-bind="strip.state"]')).to_have_text("working")


def test_zoom_survives_three_refreshes_without_a_remount(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    page = ready(open_page(live[1].url))
    until(lambda: strip_step(page) > 150, 60, "150 steps")
    page.get_by_role("button", name="All", exact=True).click()
    redrawn(page, 1)
    box = page.locator("[data-figure=loss] .nsewdrag").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, y, steps=6)
    page.mouse.up()
    expect(page.locator(".hy-follow")).to_contain_text("view held")
    zoomed = page.evaluate(RANGES)
    assert len(set(zoomed)) == 1, "the three charts share one step axis"
    chart = page.evaluate_handle("document.querySelector('[data-figure=loss] .hy-plot .main-svg')")
    for _ in range(3):  # each press makes the server send the charts anew
        was = page.evaluate(REVISION)
        page.get_by_role("button", name="log loss").click()
        until(lambda was=was: page.evaluate(REVISION) > was, 30, "a refresh")  # type: ignore[misc]
    assert page.evaluate(RANGES) == zoomed
    assert page.evaluate("window.hybridMounts") == 1
    assert page.evaluate("chart => chart.isConnected", chart)
    page.get_by_role("button", name="Follow again").click()
    until(lambda: page.evaluate(RANGES) != zoomed, 10, "following again")
    redrawn(page, 3)
    assert page.evaluate("window.hybridMounts") == 1


def test_a_threshold_moved_by_the_slider_is_applied_and_the_journal_agrees(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/control?run=live", steering=dashboard)
    slider = page.get_by_role("slider", name="Confidence threshold")
    expect(page.get_by_test_id("stTabs")).to_be_visible()  # the last part of the page: nothing is drawn anew now
    slider.focus()
    exactly = page.locator(".st-key-card_live_confidence_threshold input[type=number]")
    slider.press("ArrowRight")
    expect(exactly).to_have_value("0.86")
    page.get_by_role("button", name="Apply").first.click()
    row = commands(page).locator("[data-state=applied]", has_text="Set confidence_threshold to 0.86")
    expect(row).to_contain_text("applied at step")
    change = applied(run_dir, SetThreshold)
    assert change.command == SetThreshold("confidence_threshold", 0.86)
    expect(row).to_contain_text(f"applied at step {change.step:,}")
    expect(page.get_by_text("in force: 0.86")).to_be_visible()


def test_force_full_reaches_the_run(live: tuple[Path, Dashboard], open_page: Callable[..., Page]) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/control?run=live", steering=dashboard)
    page.get_by_role("button", name="Force full phase").click()
    expect(commands(page).locator("[data-command]", has_text="Force FULL")).to_contain_text("applied at step")
    assert applied(run_dir, ForcePhase).command == ForcePhase(Phase.FULL)


def test_pause_and_resume(live: tuple[Path, Dashboard], open_page: Callable[..., Page]) -> None:
    page = open_page(f"{live[1].url}/control?run=live", steering=live[1])
    page.get_by_role("button", name="Pause training").click()
    page.get_by_role("button", name="Resume training").click()
    expect(commands(page).locator("[data-command]", has_text="Resume")).to_contain_text("applied at step")
    expect(page.get_by_role("button", name="Pause training")).to_be_visible()


def test_rollback_asks_first_and_the_split_is_drawn(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/control?run=live", steering=dashboard)
    expect(page.get_by_role("tab", name="Audit")).to_be_visible(timeout=90_000)  # drawn last: nothing moves any more
    saved = until(lambda: [r for r in records(run_dir) if isinstance(r, CheckpointSaved)], 60, "a checkpoint")[0]
    until(lambda: now_step(page) > saved.step + 60, 60, "the page knows of it and of more steps")
    page.get_by_role("button", name="Roll back…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Thrown away:")
    assert not any(isinstance(r, AttemptStarted) for r in records(run_dir)), "nothing before the confirmation"
    dialog.get_by_role("button", name="Roll back to step").click()
    expect(commands(page).locator("[data-command]", has_text="Roll back")).to_contain_text("applied at step")
    applied(run_dir, Rollback)
    started = next(r for r in records(run_dir) if isinstance(r, AttemptStarted))
    split = f"from={started.step - 20}&to={started.abandoned_step + 20}"  # held there: training goes on meanwhile
    page = ready(open_page(f"{dashboard.url}/?run=live&{split}"))
    data = "document.querySelector('[data-figure=loss] .hy-plot').data"
    abandoned = f"{data}.find(t => t.name === 'abandoned')?.x.filter(x => x !== null)"
    until(lambda: page.evaluate(abandoned), 20, "the abandoned stretch is drawn")
    measured = [r.step for r in records(run_dir) if isinstance(r, StepRecord) and r.step > started.step]
    assert min(page.evaluate(abandoned)) == measured[0], "the first step that was measured after the checkpoint"
    expect(page.locator('[data-bind="strip.attempt"]')).to_have_text(str(started.attempt))


def test_a_run_that_has_ended_takes_no_command_and_its_page_says_so(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    script = cycled(3)
    script.say(RunState(script.step, "finished", "all steps done"))
    written_run("done", script)
    dashboard = start_dashboard()
    page = open_page(f"{dashboard.url}/control?run=done", steering=dashboard)
    expect(page.get_by_text("This run is finished: it takes no commands.")).to_be_visible()
    for name in ("Force full phase", "Pause training", "Save checkpoint", "Roll back…", "Stop run…", "Add"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    expect(page.get_by_test_id("hy-now")).to_contain_text("finished")
    expect(page.get_by_text("No command has been sent to this run yet.").first).to_be_visible()


def test_a_dashboard_started_late_restarted_and_a_trainer_that_died(
    start_training: Callable[..., Process],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
    runs_dir: Path,
) -> None:
    trainer = start_training("live")
    until(lambda: any(isinstance(r, StepRecord) and r.step > 100 for r in records(runs_dir / "live")), 60, "100 steps")
    first = start_dashboard()
    page = ready(open_page(first.url))
    until(lambda: strip_step(page) > 100, 20, "what happened before is there")
    page.get_by_role("button", name="All", exact=True).click()
    first_step = "document.querySelector('[data-figure=loss] .hy-plot').data.find(t => t.name === 'measured')?.x[0]"
    until(lambda: page.evaluate(first_step) == 1, 20, "the chart begins at the first step")
    assert first.end() in (0, -signal.SIGTERM)
    expect(page.locator(".hy-banner")).to_contain_text("Not connected to the dashboard server")
    start_dashboard(first.port)
    expect(page.locator(".hy-banner")).to_be_hidden()
    before = strip_step(page)
    until(lambda: strip_step(page) > before, 20, "the page goes on without a reload")
    os.kill(trainer.child.pid, signal.SIGKILL)
    trainer.child.wait(10)
    expect(page.locator('[data-bind="strip.state"]')).to_have_text("crashed")
    expect(page.locator('[data-bind="strip.command"]')).to_contain_text("--resume")


def test_runs_can_be_switched_and_the_address_says_which(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    for name, cycles in (("one", 2), ("two", 5)):
        script = cycled(cycles)
        script.say(RunState(script.step, "finished", "all steps done"))
        written_run(name, script)
    page = ready(open_page(f"{start_dashboard().url}/?run=one"))
    expect(page.locator('[data-bind="strip.step"]')).to_have_text(str(cycled(2).step))
    page.get_by_role("combobox").click()
    page.get_by_role("option", name="two").click()
    expect(page.locator('[data-bind="strip.step"]')).to_have_text(str(cycled(5).step))
    expect(page.locator('[data-bind="strip.state"]')).to_have_text("finished")
    assert "run=two" in page.url
    assert page.evaluate("window.hybridMounts") == 1


def test_an_empty_directory_says_what_to_run_and_the_first_run_appears(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    page = open_page(start_dashboard().url)
    expect(page.get_by_text("No run yet")).to_be_visible()
    expect(page.get_by_text("hybrid demo")).to_be_visible()
    written_run("first", cycled(2))
    ready(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 900), ("dark", 900)])
def test_screenshots_in_both_themes(
    scheme: str,
    width: int,
    written_run: Callable[..., Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
    tmp_path: Path,
) -> None:
    written_run("run", cycled(20))
    dashboard = start_dashboard()
    page = ready(open_page(dashboard.url, scheme, width))
    expect(page.locator(".hy-root")).to_have_attribute("data-mode", scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "nothing is wider than the window"
    )
    page.screenshot(path=tmp_path / f"live-{scheme}-{width}.png")
    page.goto(f"{dashboard.url}/control")
    expect(page.get_by_text("Thresholds")).to_be_visible()
    page.screenshot(path=tmp_path / f"control-{scheme}-{width}.png")
    assert (tmp_path / f"live-{scheme}-{width}.png").stat().st_size > 20_000


def test_the_view_is_in_the_address_keys_work_and_a_chart_is_a_file(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    written_run("run", cycled(40))
    dashboard = start_dashboard()
    page = ready(open_page(f"{dashboard.url}/?run=run&from=100&to=300&log=1"))
    until(lambda: page.evaluate(RANGES) == ["100 300"] * 3, 20, "the view of the address")
    expect(page.get_by_role("button", name="log loss")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as got:
        page.locator("[data-figure=loss] .hy-csv").click()
    lines = Path(got.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("step,attempt,abandoned,phase,time,loss,loss_ema")
    steps = [int(line.split(",")[0]) for line in lines[1:]]
    assert (
        steps[0] >= 100
        and steps[-1] <= 300
        and len(steps) == sum(isinstance(r.record, StepRecord) and 100 <= r.record.step <= 300 for r in cycled(40).rows)
    )
    for key in ("f", "l", "x", "s"):
        page.keyboard.press(key)
    expect(page.locator(".hy-follow")).to_have_text("following the newest step")
    expect(page.get_by_role("button", name="time", exact=True)).to_have_attribute("aria-pressed", "true")
    until(lambda: "x=relative" in page.url and "smooth=0.5" in page.url and "log" not in page.url, 10, "the address")
    again = ready(open_page(page.url))
    expect(again.get_by_role("slider", name="Smoothing")).to_have_value("0.5")
    again.keyboard.press("?")
    expect(again.locator(".hy-help")).to_be_visible()
    again.keyboard.press("Escape")
    expect(again.locator(".hy-help")).to_be_hidden()
    buttons = again.locator("[data-figure=loss] .modebar-btn").evaluate_all("all => all.map(one => one.dataset.title)")
    assert "Zoom" in buttons and not [one for one in buttons if "Share" in one], "no chart leaves this machine"


@pytest.mark.parametrize("view", ["from=-1e300&to=1e300", "from=0&to=Infinity&x=wall"])
def test_a_view_that_is_none_is_left_out_of_account(
    written_run: Callable[..., Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
    view: str,
) -> None:
    written_run("run", cycled(4))
    page = ready(open_page(f"{start_dashboard().url}/?run=run&{view}"))
    expect(page.locator(".hy-follow")).to_have_text("following the newest step")
    expect(page.locator(".hy-banner")).to_have_text("")
    was = page.evaluate(REVISION)
    page.evaluate(f"document.querySelector('[data-figure=loss] .hy-plot').emit('plotly_relayout', {WIDE})")
    expect(page.locator(".hy-follow")).to_contain_text("view held at")
    until(lambda: page.evaluate(REVISION) > was, 30, "the charts of the held view")
    expect(page.locator(".hy-banner")).to_have_text("")


def test_the_pointer_over_one_chart_points_in_all(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    written_run("run", cycled(40))
    page = ready(open_page(f"{start_dashboard().url}/?run=run"))
    until(lambda: len(set(page.evaluate(DRAWN))) == 1, 20, "all charts are drawn")
    box = page.locator("[data-figure=loss] .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] * 0.41, box["y"] + box["height"] / 2)
    until(lambda: page.evaluate(POINTED) == 3, 10, "all three charts point")


def test_two_runs_are_compared_and_the_account_is_read_from_both_journals(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    for name, plain in (("plain", True), ("run", False)):
        script = Script().start()
        script.rows[0] = msgspec.structs.replace(
            script.rows[0], record=msgspec.structs.replace(script.rows[0].record, plain=plain)
        )
        for _ in range(4):
            script.steps(25, forward_seconds=0.01, backward_seconds=0.02, optimizer_seconds=0.01, step_seconds=0.04)
            script.say(ValidationMeasured(script.step, 2.0 - script.step / 100, None, 0.01))
        script.say(RunState(script.step, "finished", "all steps done"))
        written_run(name, script)
    page = open_page(f"{start_dashboard().url}/compare?run=run&with=plain")
    page.wait_for_selector("[data-figure=validation_time][data-revision]", timeout=30_000)
    expect(page.locator("[data-list='cmp.runs'] tr")).to_have_count(2)
    traces = "document.querySelector('[data-figure=validation_time] .hy-plot').data.map(t => [t.name, t.x.length])"
    until(lambda: page.evaluate(traces) == [["run", 4], ["plain", 4]], 20, "both runs are read and drawn")
    expect(page.get_by_text("This run reached the baseline's last validation loss")).to_be_visible()
    expect(page.get_by_role("cell", name="Backward passes until validation loss 1")).to_be_visible()


def test_a_recording_is_replayed_held_moved_and_left(
    written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard], open_page: Callable[..., Page]
) -> None:
    script = cycled(60)
    script.say(RunState(script.step, "finished", "all steps done"))
    written_run("run", script)
    page = ready(open_page(f"{start_dashboard().url}/?run=run"))
    page.get_by_role("button", name="Replay the recording").click()
    expect(page.locator('[data-bind="strip.state"]')).to_have_text("replay")
    until(lambda: 30 < strip_step(page) < script.step, 30, "steps come again")
    page.get_by_role("button", name="Hold replay").click()
    expect(page.locator('[data-bind="strip.because"]')).to_have_text("recorded steps, held")
    slider = page.get_by_role("slider", name="Place in the recording")
    slider.evaluate("el => { el.value = 0.5; el.dispatchEvent(new Event('change')); }")
    until(lambda: abs(strip_step(page) - script.step / 2) < 40, 20, "the middle of the run")
    end = "document.querySelector('[data-figure=loss] .hy-plot')._fullLayout.xaxis.range[1]"
    until(lambda: page.evaluate(end) < script.step * 0.6, 20, "the chart ends there too")
    page.get_by_role("button", name="Back to the run").click()
    expect(page.locator('[data-bind="strip.state"]')).to_have_text("finished")
    until(lambda: strip_step(page) == script.step, 20, "the whole run again")
