"""What the browser paints when something small changes, counted in the tiles it rasters."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, expect

from tests.app.conftest import Dashboard
from tests.app.rows import Script, cycled
from trainer_core.spec.records import RunState

CHANGE = """async ([query, times]) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  for (let i = 0; i < times; i++) {
    document.querySelector(query).textContent = `changed ${i}`;
    await frame();
    await frame();
  }
}"""


def tiles(browser: Browser, page: Page, query: str, trace: Path) -> float:
    """Median number of tiles that a frame paints when a text changes."""
    browser.start_tracing(page=page, path=trace, categories=["disabled-by-default-devtools.timeline"])
    page.evaluate(CHANGE, [query, 10])
    browser.stop_tracing()
    events = json.loads(trace.read_text())["traceEvents"]
    found = Counter(e["args"]["tileData"]["sourceFrameNumber"] for e in events if e["name"] == "RasterTask")
    assert found, "the browser says what it rasters"
    return median(found.values())


def test_a_text_that_changes_in_a_card_has_no_chart_painted_anew(
    browser: Browser,
    written_run: Callable[..., Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
    tmp_path: Path,
) -> None:
    script: Script = cycled(3)
    script.say(RunState(script.step, "finished", "all steps done"))
    written_run("run", script)
    page = open_page(f"{start_dashboard().url}/?run=run")
    for name in ("loss", "confidence", "gradient"):
        expect(page.locator(f"[data-figure={name}][data-revision]")).to_be_visible(timeout=60_000)
    text = tiles(browser, page, "[data-bind='strip.step']", tmp_path / "strip.json")
    assert tiles(browser, page, ".hy-cause", tmp_path / "cause.json") <= text + 3
    assert tiles(browser, page, "[data-figure=loss] small", tmp_path / "caption.json") <= text + 3


FIRST = """document.addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  const step = document.querySelector("[data-bind='strip.step']");
  if (step?.textContent) window.seenBeforeCharts ??= !window.Plotly;
}).observe(document, { subtree: true, childList: true, characterData: true }));"""


def test_the_first_values_are_on_the_page_before_plotly_takes_its_thread(
    browser: Browser, written_run: Callable[..., Path], start_dashboard: Callable[..., Dashboard]
) -> None:
    written_run("run", cycled(3))
    with browser.new_page() as page:
        page.add_init_script(FIRST)
        page.goto(f"{start_dashboard().url}/?run=run")
        expect(page.locator("[data-figure=loss][data-revision]")).to_be_visible(timeout=60_000)
        assert page.evaluate("window.seenBeforeCharts") is True
