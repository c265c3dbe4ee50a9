"""The legends and the table of all runs, in a browser."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.app.conftest import Dashboard, until
from tests.app.rows import Script, cycled

PATIENCE_S = 30
SHOWN = "name => document.querySelector(`[data-figure=${name}] .hy-plot`).data.filter(t => t.visible).map(t => t.name)"


def test_a_legend_hides_lines_and_shows_them_again(
    written_run: Callable[[str, Script], Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    written_run("run", cycled(3))
    page = open_page(start_dashboard().url)
    page.wait_for_selector("[data-figure=loss][data-revision]", timeout=1000 * PATIENCE_S)
    measured = page.get_by_role("button", name="measured", exact=True)
    measured.click()
    hidden = {"measured", "measured, smoothed", "alone"}
    until(lambda: not hidden & set(page.evaluate(SHOWN, "loss")), PATIENCE_S, "the line is hidden")
    expect(measured).to_have_attribute("aria-pressed", "false")
    assert "predicted" in page.evaluate(SHOWN, "loss")
    measured.click()
    until(lambda: hidden <= set(page.evaluate(SHOWN, "loss")), PATIENCE_S, "the line is there again")


def test_runs_ticked_in_the_table_are_compared_and_hidden_by_their_swatch(
    written_run: Callable[[str, Script], Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    for name in ("one", "two", "three"):
        written_run(name, cycled(2))
    page = open_page(f"{start_dashboard().url}/compare?run=one&with=two", height=2400)
    page.wait_for_selector("[data-figure=validation_step][data-revision]", timeout=1000 * PATIENCE_S)
    page.get_by_label("With the words").fill("three")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("stDataFrame").locator("table tbody tr")).to_have_count(1, timeout=1000 * PATIENCE_S)
    page.get_by_test_id("data-grid-canvas").click(position={"x": 18, "y": 52}, force=True)
    page.wait_for_url("**with=three**", timeout=1000 * PATIENCE_S)
    rows = page.locator('[data-list="cmp.runs"] tr')
    expect(rows).to_contain_text(["one", "three"], timeout=1000 * PATIENCE_S)
    until(lambda: set(page.evaluate(SHOWN, "training_step")) == {"one", "three"}, PATIENCE_S, "both are drawn")
    rows.nth(1).get_by_role("button").click()
    until(lambda: page.evaluate(SHOWN, "training_step") == ["one"], PATIENCE_S, "its lines are hidden")
