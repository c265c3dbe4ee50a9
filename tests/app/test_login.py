"""Logging in through an OpenID Connect provider, in a real browser: who sees, who steers, who is turned away."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

from app.login import USER_COOKIE
from tests.app.conftest import Dashboard, Process, free_port, until
from tests.app.oidc import CLIENT, SECRET, Provider
from tests.telemetry.trainers import Trainer
from trainer_core.spec.commands import CommandState, Pause
from trainer_core.spec.records import CommandChanged
from trainer_core.telemetry.journal import JournalReader

PATIENCE_MS = 40_000
COOKIE_SECRET = "a long and random text of the tests"
ACCESS = """
operators = ["ann@example.org"]
viewers = ["*@example.org"]
"""
LOOKS = (
    "() => new Promise((said) => {{ const ws = new WebSocket('ws://{host}/live/ws?run=run&page=live');"
    " ws.onmessage = () => said('shown'); ws.onclose = () => said('closed'); }})"
)
"""What the live socket does with a page of this browser."""


@dataclass(frozen=True)
class Site:
    """A run that takes commands, its dashboard with logins, and their provider."""

    trainer: Trainer
    dashboard: Dashboard
    provider: Provider


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("login")
    port = free_port()
    with Provider(f"http://127.0.0.1:{port}/oauth2callback") as provider, Trainer(folder / "runs" / "run") as trainer:
        trainer.steps(5)
        write_settings(folder, provider)
        flags = ("--access", str(folder / "access.toml"))
        dashboard = Dashboard(folder / "runs", folder / "dashboard.log", port, flags, cwd=folder)
        yield Site(trainer, dashboard, provider)
        dashboard.end()


def write_settings(folder: Path, provider: Provider) -> None:
    """What docs/access.md says that somebody writes."""
    secrets = {
        "redirect_uri": "http://127.0.0.1:{port}/oauth2callback",
        "cookie_secret": COOKIE_SECRET,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "server_metadata_url": f"{provider.issuer}/.well-known/openid-configuration",
    }
    (folder / ".streamlit").mkdir()
    lines = [f"{key} = {json.dumps(value)}" for key, value in secrets.items()]
    (folder / ".streamlit" / "secrets.toml").write_text("\n".join(["[auth]", *lines]), encoding="utf-8")
    (folder / "access.toml").write_text(ACCESS, encoding="utf-8")


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[[], Page]]:
    """A browser of its own, before the login."""
    contexts: list[BrowserContext] = []

    def open_() -> Page:
        contexts.append(browser.new_context(viewport={"width": 1440, "height": 1300}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{site.dashboard.url}/?run=run")
        expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=PATIENCE_MS)
        return page

    yield open_
    for context in contexts:
        context.close()


def log_in(page: Page, site: Site, account: str) -> None:
    """The way there and back: the provider's own page in between."""
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible(timeout=PATIENCE_MS)
    assert page.url.startswith(site.provider.issuer)
    page.get_by_role("link", name=account, exact=True).click()
    page.wait_for_url(f"{site.dashboard.url}/**")


def shut_out(page: Page, site: Site) -> None:
    """Nothing of the run comes to this browser, by no way in."""
    expect(page.get_by_role("heading", name="Log in to look")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator(".hy-root, [data-testid=hy-now]")).to_have_count(0)
    assert page.request.get(f"{site.dashboard.url}/live/range?run=run&signals=loss").status == 403
    assert page.evaluate(LOOKS.format(host=site.dashboard.url.removeprefix("http://"))) == "closed"


def let_in(page: Page, site: Site) -> None:
    """What a run says comes to this browser."""
    expect(page.locator('[data-bind="strip.step"]').first).to_have_text("5", timeout=PATIENCE_MS)
    assert page.request.get(f"{site.dashboard.url}/live/range?run=run&signals=loss").status == 200
    assert page.evaluate(LOOKS.format(host=site.dashboard.url.removeprefix("http://"))) == "shown"


def commands(site: Site) -> list[CommandChanged]:
    rows = JournalReader(site.trainer.run_dir).rows(limit=10**6)
    return [row.record for row in rows if isinstance(row.record, CommandChanged)]


def test_without_a_login_nothing_is_shown(site: Site, visit: Callable[[], Page]) -> None:
    shut_out(visit(), site)


def test_an_operator_steers_under_the_name_of_the_login_and_logs_out(site: Site, visit: Callable[[], Page]) -> None:
    page = visit()
    log_in(page, site, "ann")
    expect(page.get_by_text("ann@example.org · operator")).to_be_visible(timeout=PATIENCE_MS)
    let_in(page, site)
    page.goto(f"{site.dashboard.url}/control?run=run")
    expect(page.get_by_text("You may steer as ann@example.org (logged in).")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Pause training").click()

    def paused() -> list[CommandChanged]:
        return [said for said in commands(site) if said.command == Pause() and said.state is CommandState.APPLIED]

    (said,) = until(paused, 40, "the pause is applied")
    assert (said.actor, said.on_behalf_of) == ("operator", "ann@example.org (logged in)")
    listed = page.get_by_test_id("hy-commands")
    expect(listed).to_contain_text("by operator for ann@example.org (logged in)", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=PATIENCE_MS)
    assert site.provider.logged_out == ["ann"], "the provider was told, with her own token"
    shut_out(page, site)


def test_a_viewer_sees_and_does_not_steer(site: Site, visit: Callable[[], Page]) -> None:
    page = visit()
    log_in(page, site, "bob")
    expect(page.get_by_text("bob@example.org · viewer")).to_be_visible(timeout=PATIENCE_MS)
    let_in(page, site)
    before = len(commands(site))
    page.goto(f"{site.dashboard.url}/control?run=run")
    expect(page.get_by_text("bob@example.org may look, not steer.")).to_be_visible(timeout=PATIENCE_MS)
    for name in ("Save checkpoint", "Stop run…", "Force full phase"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    assert len(commands(site)) == before


@pytest.mark.parametrize(
    ("account", "said"),
    [("eve", "eve@evil.example has no role here."), ("una", "ann@example.org has no role here.")],
    ids=["unknown", "unverified"],
)
def test_who_has_no_role_sees_nothing(site: Site, visit: Callable[[], Page], account: str, said: str) -> None:
    page = visit()
    log_in(page, site, account)
    expect(page.get_by_text(said)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Log in")).to_have_count(0)
    shut_out(page, site)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=PATIENCE_MS)


def test_a_token_that_the_provider_did_not_sign_is_no_login(site: Site, visit: Callable[[], Page]) -> None:
    page = visit()
    log_in(page, site, "forged")
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=PATIENCE_MS)
    shut_out(page, site)
    assert not [cookie for cookie in page.context.cookies() if cookie["name"] == "_streamlit_user"]


def test_a_login_cookie_that_another_secret_signed_is_no_login(site: Site, visit: Callable[[], Page]) -> None:
    page = visit()
    said = json.dumps({"is_logged_in": True, "email": "ann@example.org", "email_verified": True})
    for secret, name in (("a guess", USER_COOKIE), (COOKIE_SECRET, "_another")):
        forged = create_signed_value(secret, name, said).decode()
        page.context.add_cookies([{"name": USER_COOKIE, "value": forged, "url": site.dashboard.url}])
        page.goto(f"{site.dashboard.url}/control?run=run")
        shut_out(page, site)
    signed = create_signed_value(COOKIE_SECRET, USER_COOKIE, said).decode()
    page.context.add_cookies([{"name": USER_COOKIE, "value": signed, "url": site.dashboard.url}])
    page.goto(f"{site.dashboard.url}/?run=run")
    let_in(page, site)  # so that it was the signature that counted


def test_an_access_file_without_a_provider_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "access.toml").write_text(ACCESS, encoding="utf-8")
    words = [sys.executable, "-m", "app", str(tmp_path), "--port", "0", "--no-browser", "--access", "access.toml"]
    refused = Process(words, tmp_path / "out.log", tmp_path)
    assert refused.child.wait(60) == 2
    assert "--access needs a provider for the login" in refused.output and "secrets.toml" in refused.output
