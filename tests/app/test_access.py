"""Codes, links, sessions and roles: who may look, who may steer, and that no answer carries a secret."""

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from app.access import (
    LETTERS,
    LOCKED,
    MOST_WRONG,
    READ_ONLY,
    SESSION_S,
    USED,
    WRONG_WINDOW_S,
    Gate,
    Login,
    Policy,
    Role,
    read_policy,
    role_of,
)
from app.login import USER_COOKIE, login_of
from tests.app.conftest import Dashboard, write_run
from tests.app.rows import cycled
from trainer_core.spec.errors import UserError

POLICY = Policy(("ann@example.org", "*@ops.example.org"), ("*@example.org", "eve@ops.example.org"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock=clock)


def test_a_link_works_once(gate: Gate) -> None:
    key = gate.link()
    session = gate.open_link(key).session
    assert gate.right(session).steers
    assert gate.open_link(key).session is None and gate.open_link(key).said == USED
    assert gate.right(session).steers, "the first to use it keeps the right"


def test_the_code_works_as_people_type_it_and_says_who(gate: Gate) -> None:
    typed = " ".join(gate.code.lower().split("-"))
    assert set(gate.code) <= {*LETTERS, "-"} and len(gate.code) == 14
    for _ in range(2):
        right = gate.right(gate.unlock(typed, "  Ann \n Lee ").session)
        assert right.steers and right.session
        assert re.fullmatch(r"“Ann Lee” \(name as typed, session [2-9A-Z]{4}\)", right.who)


def test_two_sessions_are_told_apart_whatever_was_typed(gate: Gate) -> None:
    link = gate.link()
    sessions = [gate.unlock(gate.code, "Ann"), gate.unlock(gate.code, "Ann"), gate.open_link(link)]
    whos = [gate.right(opened.session).who for opened in sessions]
    assert len(set(whos)) == 3 and re.fullmatch(r"session [2-9A-Z]{4}", whos[2])
    assert [gate.right(opened.session).who for opened in sessions] == whos, "one session keeps its mark"


def test_a_typed_name_cannot_look_like_a_login(gate: Gate) -> None:
    forged = gate.right(gate.unlock(gate.code, "x” ann@example.org (logged in)\u202e, “").session).who
    assert forged.startswith("“x ann@example.org (logged in) ,” (name as typed, session ")
    assert forged.count("“") == forged.count("”") == 1 and "\u202e" not in forged


def test_wrong_codes_are_counted_and_waiting_helps(gate: Gate, clock: Clock) -> None:
    for _ in range(MOST_WRONG):
        assert "not the operator code" in gate.unlock("AAAA-AAAA-AAAA").said
        clock.now += 1
    assert "Too many wrong codes: wait 55 s" in gate.unlock(gate.code).said
    clock.now = WRONG_WINDOW_S
    assert gate.unlock(gate.code).session is not None


def test_a_right_ends_when_it_is_given_back_or_old(gate: Gate, clock: Clock) -> None:
    one, two = gate.unlock(gate.code).session, gate.unlock(gate.code).session
    assert one is not None and two is not None
    gate.lock(one)
    assert gate.right(one).why == LOCKED and gate.right(two).steers
    clock.now = SESSION_S
    assert not gate.right(two).steers


@pytest.mark.parametrize("session", [None, "", "guess", "x" * 5000, "\ud800"])
def test_no_cookie_and_a_made_up_one_look_and_do_not_steer(gate: Gate, session: str | None) -> None:
    right = gate.right(session)
    assert (right.role, right.why) == (Role.VIEWER, LOCKED)


def test_read_only_has_no_code_at_all(clock: Clock) -> None:
    gate = Gate(read_only=True, clock=clock)
    assert gate.code == ""
    for opened in (gate.unlock(""), gate.open_link(gate.link())):
        assert (opened.session, opened.said) == (None, READ_ONLY)
    assert gate.right(None).why == READ_ONLY
    strict = Gate(read_only=True, policy=POLICY, clock=clock)
    assert strict.right(None, Login("ann@example.org")).role is Role.VIEWER


@pytest.mark.parametrize(
    ("email", "role"),
    [
        ("ann@example.org", Role.OPERATOR),
        ("ANN@Example.ORG", Role.OPERATOR),
        ("bob@example.org", Role.VIEWER),
        ("joe@ops.example.org", Role.OPERATOR),
        ("eve@ops.example.org", Role.VIEWER),
        ("ann@example.org.evil.net", Role.NOBODY),
        ("ann@evil.net", Role.NOBODY),
        ("ann@evil.net@example.org", Role.NOBODY),
        ("", Role.NOBODY),
    ],
)
def test_a_role_comes_of_the_address_then_of_its_domain(email: str, role: Role) -> None:
    assert role_of(Login(email), POLICY) is role
    assert role_of(Login(email, verified=False), POLICY) is Role.NOBODY
    assert role_of(None, POLICY) is Role.NOBODY


def test_with_an_access_file_nobody_looks_without_login(clock: Clock) -> None:
    gate = Gate(policy=POLICY, clock=clock)
    assert not gate.right(None).looks
    assert "eve@evil.net has no role here" in gate.right(None, Login("eve@evil.net")).why
    assert "may look, not steer" in gate.right(None, Login("bob@example.org")).why
    ann = gate.right(None, Login("ann@example.org"))
    assert ann.steers and ann.who == "ann@example.org (logged in)" and not ann.session
    bob = gate.right(gate.unlock(gate.code, "Ann").session, Login("bob@example.org"))
    assert bob.steers and bob.who.startswith("bob@example.org (logged in), session "), (
        "a login goes before a typed name"
    )
    doubted = gate.right(gate.unlock(gate.code, "Bob").session, Login("bob@example.org", verified=False))
    assert doubted.steers and doubted.who.startswith("“Bob” (name as typed")
    assert gate.right(gate.unlock(gate.code).session).steers, "the code of the terminal works beside the login"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("operator = []", "unknown field `operator`"),
        ('operators = "ann"', "operators"),
        ('operators = ["ann"]', "'ann': must be an e-mail address or *@domain"),
        ('viewers = ["*"]', "'*': must be"),
        ('viewers = ["a*@x.org"]', "'a*@x.org': must be"),
        ("operators = [", "access file"),
    ],
)
def test_a_wrong_access_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "access.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_policy(path)
    assert said in str(refused.value) and str(path) in str(refused.value)


def test_a_login_is_believed_only_with_the_servers_signature() -> None:
    said = '{"is_logged_in": true, "email": "ann@example.org"}'
    signed = create_signed_value("secret", USER_COOKIE, said).decode()
    assert login_of({USER_COOKIE: signed}, "secret") == Login("ann@example.org")
    assert login_of({USER_COOKIE: signed}, "another") is None
    assert login_of({USER_COOKIE: said}, "secret") is None
    assert login_of({}, "secret") is None
    unverified = said.replace("}", ', "email_verified": false}')
    cookies = {USER_COOKIE: create_signed_value("secret", USER_COOKIE, unverified).decode()}
    assert login_of(cookies, "secret") == Login("ann@example.org", verified=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("served")
    write_run(folder / "runs" / "run", cycled(3))
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield dashboard
    dashboard.end()


class Browser:
    """A cookie jar that follows redirects or not; no scripts."""

    def __init__(self) -> None:
        self.jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar), _Stay())

    def ask(self, url: str, form: dict[str, str] | None = None, **headers: str) -> HTTPResponse:
        body = urllib.parse.urlencode(form).encode() if form is not None else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return self._opener.open(urllib.request.Request(url, body, named), timeout=10)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as answer:
            return answer  # type: ignore[return-value]


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def test_a_link_becomes_a_strict_cookie_and_leaves_the_address(served: Dashboard) -> None:
    link = served.link
    answer = Browser().ask(f"{link}&run=run")
    assert answer.status == 303
    assert answer.headers["Location"] == "/?run=run"
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"hybrid_session_{served.port}=")
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "Path=/" in cookie
    assert answer.headers["Referrer-Policy"] == "no-referrer" and answer.headers["Cache-Control"] == "no-store"
    again = Browser().ask(link)
    assert again.status == 403 and again.headers["Set-Cookie"] is None
    assert "works once" in again.read().decode()
    assert served.link != link, "the terminal shows the next one"


def test_a_link_cannot_lead_elsewhere(served: Dashboard) -> None:
    code = served.link.split("code=")[1]
    answer = Browser().ask(f"{served.url}//evil.example/?code={code}")
    assert answer.headers.get("Location", "/").startswith("/") and "//" not in answer.headers.get("Location", "/")


def test_the_form_wants_its_own_origin_and_the_code(served: Dashboard) -> None:
    url = f"{served.url}/access/unlock"
    assert Browser().ask(url, {"code": served.code}).status == 403
    assert Browser().ask(url, {"code": served.code}, Origin="http://evil.example").status == 403
    assert Browser().ask(url, {"code": "x" * 5000}, Origin=served.url).status == 403
    wrong = Browser().ask(url, {"code": "AAAA-AAAA-AAAA"}, Origin=served.url)
    assert wrong.status == 403 and b"in the terminal" in wrong.read()
    browser = Browser()
    assert browser.ask(url, {"code": served.code, "who": "Ann"}, Origin=served.url).status == 200
    assert [cookie.name for cookie in browser.jar] == [f"hybrid_session_{served.port}"]
    assert browser.ask(f"{served.url}/access/lock", {}, Origin=served.url).status == 200
    assert not list(browser.jar)


def test_the_range_route_is_for_this_servers_pages(served: Dashboard) -> None:
    url = f"{served.url}/live/range?run=run&signals=loss"
    assert Browser().ask(url).status == 200, "looking is free"
    assert Browser().ask(url, Origin="http://evil.example").status == 403
    assert Browser().ask(url, Sec_Fetch_Site="cross-site").status == 403


@pytest.mark.parametrize("origin", [None, "null", "http://127.0.0.1:1", "http://localhost:1", "http://evil.example"])
def test_streamlits_socket_is_for_this_servers_pages_too(served: Dashboard, origin: str | None) -> None:
    """A cookie knows no port: whoever serves a page on this machine could else press buttons with it."""
    url = f"ws://127.0.0.1:{served.port}/_stcore/stream"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, origin=Origin(origin) if origin else None, open_timeout=10)
    assert refused.value.response.status_code == 403
    with connect(url, origin=Origin(served.url), open_timeout=10):
        pass


def test_no_other_page_may_frame_this_one(served: Dashboard) -> None:
    for path in ("/", "/control", "/live/range?run=run"):
        assert "frame-ancestors 'self'" in Browser().ask(served.url + path).headers["Content-Security-Policy"]


def test_a_range_beyond_all_numbers_is_said(served: Dashboard) -> None:
    answer = Browser().ask(f"{served.url}/live/range?run=run&to={'9' * 400}")
    assert answer.status == 400 and b"must be a whole step" in answer.read()


def test_read_only_prints_no_code_and_takes_none(
    start_dashboard: Callable[..., Dashboard], written_run: Callable[..., Path]
) -> None:
    written_run("run", cycled(1))
    dashboard = start_dashboard(flags=("--read-only",))
    assert "Read-only: nobody can steer" in dashboard.output and "Operator code" not in dashboard.output
    answer = Browser().ask(f"{dashboard.url}/access/unlock", {"code": ""}, Origin=dashboard.url)
    assert answer.status == 403 and b"read-only" in answer.read()
    assert Browser().ask(f"{dashboard.url}/?code=anything").status == 403
