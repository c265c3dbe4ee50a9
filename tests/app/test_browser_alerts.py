"""The Alerts page in a real browser, over a real run: what is pressed is asked, sent and applied."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.conftest import Dashboard, Process, until
from tests.app.test_browser import applied, records
from tests.conftest import end_agents
from trainer_core.spec.commands import (
    AcknowledgeAlert,
    ApplyRemedy,
    CommandRequest,
    CommandState,
    SetThreshold,
    SilenceAlert,
)
from trainer_core.spec.records import AlertRaised, CommandChanged
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.client import Client

FIRST = ".hy-entries > li[data-id]"
LONG = 5_000_000
"""Steps that a run which predicts does not make while a test looks."""
PLATEAU, DISK, MEMORY = "plateau", "disk nearly full", "host memory nearly full"
SETTINGS = (
    "confidence_threshold=0.85",
    "plateau_steps=1",
    "plateau_improvement=1",
    "disk_free_low=1000000",
    "alert_cooldown=0",
)
"""No gain is enough and no disk is; a rule that was resolved stays quiet, so that only what a test does is news."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dashboard]]:
    folder = tmp_path_factory.mktemp("alerts")
    run_dir = folder / "runs" / "live"
    words = [sys.executable, "-m", "trainer_core", "train", "digits", "--steps", "10000000", "--run-dir", str(run_dir)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    trainer = Process(words, folder / "train.log", folder)
    until(lambda: run_dir.joinpath("journal.db").exists() and raised(run_dir) >= {PLATEAU, DISK}, 150, "both alerts")
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield run_dir, dashboard
    dashboard.end()
    trainer.end()
    end_agents(folder)


def raised(run_dir: Path) -> set[str]:
    return {record.rule for record in records(run_dir) if isinstance(record, AlertRaised)}


def row(page: Page, rule: str) -> Locator:
    return page.locator(f'.hy-entries > li[data-rule="{rule}"]').first


def test_a_remedy_opens_control_filled_in_and_is_sent_when_it_is_confirmed_there(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live", steering=dashboard)
    page.wait_for_selector(FIRST, timeout=60_000)
    expect(row(page, PLATEAU).locator(".hy-change")).to_contain_text("learning_rate")
    row(page, PLATEAU).get_by_role("button", name="Remedy on Control…").click()
    expect(page.get_by_text("Filled in by the button that led here. Nothing has been sent")).to_be_visible()
    assert "remedy=loss_plateau" in page.url and "run=live" in page.url
    page.get_by_role("button", name="Apply all of it…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Twice the learning rate")
    assert not [r for r in records(run_dir) if isinstance(r, CommandChanged)], "nothing was sent by looking"
    dialog.get_by_role("button", name="Apply all of it").click()
    assert applied(run_dir, ApplyRemedy).command == ApplyRemedy("loss_plateau")
    expect(page.get_by_text("Filled in by the button that led here")).to_have_count(0)
    page.wait_for_url(lambda url: "remedy=" not in url)


def test_a_press_asks_first_and_what_was_done_is_shown_when_the_run_has_done_it(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live", steering=dashboard)
    page.wait_for_selector(FIRST, timeout=60_000)
    row(page, DISK).get_by_role("button", name="Acknowledge").click()
    step = applied(run_dir, AcknowledgeAlert).step
    expect(row(page, DISK).locator(".hy-path")).to_contain_text(f"acknowledged at {step:,}")
    expect(row(page, DISK).get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(page.get_by_text("applied at step").first).to_be_visible()
    row(page, DISK).get_by_role("button", name="Silence…").click()
    steps = page.get_by_role("dialog").get_by_label("For how many steps")
    expect(steps).to_have_value("500")
    steps.fill(str(LONG))
    steps.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Silence").click()
    change = applied(run_dir, SilenceAlert)
    assert change.command == SilenceAlert(DISK, LONG)
    expect(row(page, DISK).locator(".hy-path")).to_contain_text(f"silenced until {change.step + LONG:,}")
    assert page.evaluate("window.hybridMounts") == 1, "the page was not built anew"


def test_whoever_only_looks_may_filter_and_follow_links_and_sends_nothing(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/alerts?run=live")
    page.wait_for_selector(FIRST, timeout=60_000)
    before = sum(isinstance(r, CommandChanged) for r in records(run_dir))
    page.locator(".hy-entries").get_by_role("button", name=re.compile("Acknowledge|Silence")).first.click()
    expect(page.get_by_text("You are looking only")).to_be_visible()
    page.locator("#hy-issue-overfitting").get_by_role("button", name="Remedy on Control…").click()
    expect(page.get_by_role("button", name="Apply all of it…")).to_be_disabled()
    page.goto(f"{dashboard.url}/alerts?run=live")
    page.wait_for_selector(FIRST, timeout=60_000)
    assert sum(isinstance(r, CommandChanged) for r in records(run_dir)) == before
    page.get_by_label("Rule", exact=True).select_option(PLATEAU)
    expect(row(page, DISK)).to_be_hidden()
    expect(page.locator(".hy-filters output")).to_contain_text("hidden by the filter")
    link = row(page, PLATEAU).locator("a.hy-when")
    span = re.search(r"from=(\d+)&to=(\d+)", link.get_attribute("href") or "")
    assert span is not None
    low, high = (f"{int(step):,}" for step in span.groups())
    link.click()
    expect(page.locator(".hy-follow")).to_contain_text(f"view held at steps {low} to {high}")


def test_an_alert_that_becomes_critical_is_announced_once_in_a_browser(
    live: tuple[Path, Dashboard], open_page: Callable[..., Page]
) -> None:
    run_dir, dashboard = live
    page = open_page(f"{dashboard.url}/reference?run=live")
    page.wait_for_selector('[data-bind="strip.step"]:not(:empty)', timeout=60_000)
    with Client(run_dir, role="operator") as client:
        for name in ("memory_high", "memory_critical"):  # no program uses less: the alert stays open
            client.send(CommandRequest(name, SetThreshold(name, 0.0)))
            assert client.wait(name, 30).state is CommandState.APPLIED
    toasts = page.locator(".hy-toast")
    expect(toasts.last).to_contain_text(MEMORY, timeout=60_000)
    said = [r.severity for r in records(run_dir) if isinstance(r, AlertRaised) and r.rule == MEMORY]
    assert said and set(said) == {Severity.CRITICAL}
    again = page.context.new_page()
    again.goto(f"{dashboard.url}/alerts?run=live")
    again.wait_for_selector(FIRST, timeout=60_000)
    expect(row(again, MEMORY)).to_have_attribute("data-tone-is", "critical")
    expect(again.locator(".hy-toast")).to_have_count(0)
    first = toasts.first.element_handle()
    toasts.first.get_by_role("button", name="Close").click()
    first.wait_for_element_state("hidden")
