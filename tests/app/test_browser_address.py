"""The address says what a page shows, and "Back" takes one press."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.app.conftest import Dashboard, until
from tests.app.rows import Script, cycled
from trainer_core.spec.records import RunState

FIGURE = {"live": "loss", "phases": "warmup_loss", "health": "sign_divergence", "compare": "validation_step"}
"""One that no other page has."""


def place(page: Page) -> SplitResult:
    return urlsplit(page.evaluate("location.href"))


def asked(page: Page) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(place(page).query).items()}


def test_back_takes_one_press_a_page_and_one_for_what_was_chosen(
    written_run: Callable[[str, Script], Path],
    start_dashboard: Callable[..., Dashboard],
    open_page: Callable[..., Page],
) -> None:
    for name in ("one", "two"):
        script = cycled(2)
        script.say(RunState(script.step, "finished", "all steps done"))
        written_run(name, script)
    page = open_page(start_dashboard().url)
    pages = ("live", "phases", "health", "compare", "control")
    for name in pages:
        if name != "live":
            page.get_by_role("link", name=name.capitalize(), exact=True).click()
        until(lambda name=name: asked(page).get("run") == "two", 20, f"the address of {name} says the run")  # type: ignore[misc]
    page.get_by_role("combobox").first.click()
    page.get_by_role("option", name="one").click()
    until(lambda: asked(page).get("run") == "one", 20, "another run")
    page.go_back()
    until(lambda: asked(page).get("run") == "two" and place(page).path == "/control", 20, "the run before")
    expect(page.get_by_role("combobox").first).to_have_value("✓ two · finished")
    for name in pages[-2::-1]:
        page.go_back()
        path = "/" if name == "live" else f"/{name}"
        until(lambda path=path: place(page).path == path, 20, f"back on {name}")  # type: ignore[misc]
        until(lambda: asked(page).get("run") == "two", 20, f"{name} says the run")
        # a press while the page before is still being drawn is Streamlit's own affair
        expect(page.locator(f"[data-figure={FIGURE[name]}]")).to_be_attached(timeout=20_000)
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=20_000)
        if name == "compare":
            until(lambda: asked(page).get("with") == "one", 20, "compare says the runs beside it")
