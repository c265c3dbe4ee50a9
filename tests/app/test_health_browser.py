"""The Health page in a real browser: a sign that lights up, one unfolded by keyboard, the way to its alert."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.app.conftest import Dashboard
from tests.app.rows import Script
from tests.app.test_health import everything, raised
from trainer_core.spec.commands import ScaleLearningRate

CELLS = "document.querySelector('[data-figure=layer_heat] .hy-plot').data[0].z.map(row => row.length)"


def test_a_lit_sign_shows_its_diagram_and_leads_to_its_alert(
    written_run: Callable[[str, Script], Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    script = everything()
    script.say(raised(script.step, "oscillation", "sign_changes", commands=(ScaleLearningRate(0.3),)))
    written_run("diverged", script)
    page = open_page(f"{start_dashboard().url}/health?run=diverged")
    heat = page.locator("[data-figure=layer_heat]")
    heat.wait_for(timeout=60_000)
    heat.scroll_into_view_if_needed()
    expect(heat).to_have_attribute("data-revision", re.compile(r"\d+"), timeout=60_000)
    assert page.evaluate(CELLS) == [page.evaluate(CELLS)[0]] * 2, "one row a layer"

    lit = page.locator(".hy-sign.on")
    expect(lit).to_have_count(1)
    expect(lit).to_contain_text("Oscillation")
    expect(lit).to_contain_text("Remedy ready: scale learning rate by 0.3")
    expect(lit.locator("[data-figure]")).to_have_attribute("data-revision", re.compile(r"\d+"), timeout=30_000)
    expect(lit.get_by_role("button", name="Remedy on Control…")).to_be_visible()

    quiet = page.locator(".hy-sign", has_text="Loss plateau")
    expect(quiet.locator("dl")).to_be_hidden()
    expect(quiet.get_by_role("button", name="Remedy on Control…")).to_be_hidden()
    page.get_by_label("Show Loss plateau").focus()
    page.keyboard.press("Space")
    expect(quiet.locator("dl")).to_be_visible()
    expect(quiet).to_contain_text("The loss has not fallen for more than 500 steps.")
    page.wait_for_selector("[data-figure=sign_plateau][data-revision]", timeout=30_000)

    lit.get_by_role("button", name="Its alert").click()
    page.wait_for_url("**/alerts?**run=diverged**", timeout=30_000)


def test_the_file_of_a_chart_that_shows_the_whole_run_holds_the_whole_run(
    written_run: Callable[[str, Script], Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    written_run("run", everything())
    page = open_page(f"{start_dashboard().url}/health?run=run&from=10&to=20")
    zoomed, whole = (page.locator(f"[data-figure={name}] .hy-csv") for name in ("gradient", "curve"))
    expect(zoomed).to_have_attribute("href", re.compile("from=10&to=20"), timeout=60_000)
    whole.scroll_into_view_if_needed()
    expect(whole).to_have_attribute("href", re.compile("signals=loss%2Cpredicted_loss$"), timeout=30_000)
    expect(whole).to_have_attribute("title", "Every measured step")
