"""The Phases page in a real browser: what a guard says can be read, and the diagram follows the journal."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app.conftest import Dashboard, write_run
from tests.app.rows import Script
from tests.app.test_own_loops import own_loop
from tests.app.test_phases_page import full_cycle
from trainer_core.spec.phases import Phase
from trainer_core.spec.transitions import TRANSITIONS
from trainer_core.telemetry.journal import JournalWriter

expect.set_options(timeout=15_000)

MACHINE = """() => {
    const svg = document.querySelector('.hy-machine'), scrolled = svg.closest('.hy-scroll');
    const sizes = [...svg.querySelectorAll('text')].map(text => parseFloat(getComputedStyle(text).fontSize));
    return [scrolled.scrollWidth - scrolled.clientWidth, Math.min(...sizes) * svg.getScreenCTM().a];
}"""
"""Pixels of the state machine beside its card, and the size of its smallest letters on the screen."""
CONFIDENT = next(i for i, row in enumerate(TRANSITIONS) if row.cause == "confident")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dashboard]]:
    """A dashboard over two written runs, and a directory for a third."""
    folder = tmp_path_factory.mktemp("phases")
    write_run(folder / "runs" / "measured", full_cycle())
    write_run(folder / "runs" / "own", own_loop())
    watched = folder / "runs" / "watched"
    watched.mkdir()
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield watched, dashboard
    dashboard.end()


def opened(open_page: Callable[..., Page], dashboard: Dashboard, run: str, **how: object) -> Page:
    page = open_page(f"{dashboard.url}/phases?run={run}", **how)
    page.wait_for_selector(".hy-phased", timeout=45_000, state="attached")
    return page


def test_the_page_says_why_and_follows_the_machine_from_phase_to_phase(
    shown: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = shown
    writer, script, written = JournalWriter(run_dir), Script().start(), 0

    def write() -> None:
        nonlocal written
        writer.append([(row.time, row.attempt, row.record) for row in script.rows[written:]])
        written = len(script.rows)

    script.steps(20, loss_change=0.5)
    write()
    page = opened(open_page, dashboard, "watched", width=900, height=1800)
    expect(page.locator(".hy-answer").first).to_contain_text("Warming up: 80 steps to go of 100.")
    hidden, size = page.evaluate(MACHINE)
    assert hidden == 0, "the state machine can be seen without scrolling sideways"
    assert size >= 9.5, "and its smallest letters can be read"
    why = page.locator('[data-list="why.lines"] li').first
    expect(why.locator(".hy-when")).to_be_visible()
    expect(why).to_contain_text("20 of 100 steps")
    expect(page.locator('[data-figure="warmup_gradient"] .main-svg').first).to_be_visible(timeout=45_000)
    expect(page.locator('[data-figure="prediction"]')).to_be_hidden()

    script.enter(Phase.FULL, 10, because=("warmup_ran (100 of 100 steps)", "loss_stable (0.1 < 0.25)"))
    script.steps(4, budget=10, full_needed=10)
    write()
    expect(page.locator(".hy-answer").first).to_contain_text("6 full steps to go before the next look at a prediction.")
    machine = page.locator(".hy-machine")
    expect(machine.locator('.hy-node[data-on="pm.FULL.on"]')).to_contain_class("on")
    expect(machine.locator('[data-bind="pm.WARMUP-FULL.count"]')).to_have_text("1×")
    number = machine.locator(f'[data-bind="pm.row{CONFIDENT}.full_cycle_ran.detail"]')
    expect(number).to_have_text("4 of 10 steps")

    script.enter(Phase.PREDICT, 12)
    script.stretch(12)
    write()
    expect(machine.locator('[data-bind="pm.FULL-PREDICT.count"]')).to_have_text("1×")
    expect(machine.locator('.hy-edge[data-on="pm.FULL-PREDICT.on"]')).to_contain_class("on")
    expect(page.locator('[data-figure="prediction"]')).to_be_visible()
    writer.close()


def test_measured_predictions_and_loops_without_phases_are_shown_as_what_they_are(
    shown: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    page = opened(open_page, shown[1], "measured", scheme="dark", height=4200)
    expect(page.locator('[data-bind="predict.cost_said"]')).to_contain_text("3.1x as fast without its backward pass")
    skipped = page.locator('[data-list="predict.cost"] li.hy-skipped')
    expect(skipped.locator(".hy-when")).to_have_text("SKIPPED")
    expect(page.locator('[data-list="correct.weights"] li').first).to_contain_text("w = 0.600 · cosine 0.900")
    page.locator('[data-figure="prediction"]').scroll_into_view_if_needed()  # only what is in sight is drawn
    expect(page.locator('[data-figure="prediction"][data-revision]')).to_be_visible(timeout=45_000)
    page = opened(open_page, shown[1], "own")
    expect(page.get_by_role("heading", name="No phases")).to_be_visible()
    expect(page.locator(".hy-machine")).to_be_hidden()
