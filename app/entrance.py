"""The door of the server: one-time links become a session cookie, the code form, and who may use the live routes.

Knows HTTP; what a code is worth is the gate's to say. No code and no session is ever part of an answer's text.
"""

import asyncio
from collections.abc import Callable
from html import escape
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import URL, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Gate, Opened
from app.login import right_of

CODE = "code"
"""The query key of a one-time link."""
CALLBACK = "oauth2callback"
"""Where an identity provider sends people back to, with a code of its own."""
UNLOCK, LOCK, LIVE, ASSETS = "/access/unlock", "/access/lock", "/live/", "/live/asset/"
MOST_FORM = 2000
PLAIN = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


class Entrance:
    """Takes codes out of addresses, guards what lies under ``/live/`` and every socket; everything else passes."""

    def __init__(self, app: ASGIApp, gate: Gate, link_used: Callable[[], None]) -> None:
        """``link_used`` is called, in a thread, when a one-time link has been exchanged."""
        self._app, self._gate, self._link_used = app, gate, link_used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        answer: Response | None = None
        if scope["type"] == "http":
            request = Request(scope)
            key = request.query_params.get(CODE)
            if key is not None and request.method == "GET" and not request.url.path.endswith(CALLBACK):
                answer = await self._exchanged(request, key)
            elif self._guarded(request.url.path) and (why := self._refusal(request)):
                answer = Response(why, status_code=403, media_type="text/plain", headers=PLAIN)
        elif scope["type"] == "websocket":
            why = self._socket_refusal(HTTPConnection(scope))
            if why:
                await send({"type": "websocket.close", "code": 1008, "reason": why})
                return
        await (answer or self._app)(scope, receive, _unframed(send))

    def _socket_refusal(self, asked: HTTPConnection) -> str:
        """Why a socket is closed to who asks. Streamlit itself lets in all ports of this machine, and no Origin."""
        if not same_origin(asked):
            return "wrong origin"
        if self._guarded(asked.url.path) and not right_of(asked.cookies, self._gate).looks:
            return "log in to look"
        return ""

    @staticmethod
    def _guarded(path: str) -> bool:
        return path.startswith(LIVE) and not path.startswith(ASSETS)

    def _refusal(self, request: Request) -> str:
        """Why a live route is closed to this request; empty: it is open."""
        origin = request.headers.get("origin")
        if origin is not None and not same_origin(request):
            return "wrong origin"
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "asked for by another site"
        right = right_of(request.cookies, self._gate)
        return "" if right.looks else right.why

    async def _exchanged(self, request: Request, key: str) -> Response:
        clean = _without_code(request.url)
        opened = self._gate.open_link(key)
        if opened.session is None:
            return HTMLResponse(sorry(opened.said, clean), status_code=403, headers=PLAIN)
        await asyncio.to_thread(self._link_used)
        return _admitted(RedirectResponse(clean, status_code=303, headers=PLAIN), request, self._gate, opened.session)


def access_routes(gate: Gate) -> list[BaseRoute]:
    """The form's two routes: a code for a session, and the session given back."""

    async def unlock(request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return JSONResponse({"ok": False, "said": "wrong origin or form"}, status_code=403, headers=PLAIN)
        opened: Opened = gate.unlock(form.get("code", ""), form.get("who", ""))
        if opened.session is None:
            return JSONResponse({"ok": False, "said": opened.said}, status_code=403, headers=PLAIN)
        return _admitted(JSONResponse({"ok": True, "said": ""}, headers=PLAIN), request, gate, opened.session)

    async def lock(request: Request) -> Response:
        if await _form(request) is None:
            return JSONResponse({"ok": False, "said": "wrong origin or form"}, status_code=403, headers=PLAIN)
        gate.lock(request.cookies.get(gate.cookie, ""))
        answer = JSONResponse({"ok": True, "said": ""}, headers=PLAIN)
        answer.delete_cookie(gate.cookie, path="/", httponly=True, samesite="strict")
        return answer

    return [Route(UNLOCK, unlock, methods=["POST"]), Route(LOCK, lock, methods=["POST"])]


def same_origin(asked: HTTPConnection) -> bool:
    """Whether a page of this very server asks. No Origin: not a page, refused too."""
    origin = urlsplit(asked.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == asked.headers.get("host")


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form sent by a page of this server; None for anything else."""
    length = request.headers.get("content-length", "")
    if not same_origin(request) or not length.isdigit() or int(length) > MOST_FORM:
        return None
    try:
        fields = parse_qs((await request.body()).decode("utf-8"), max_num_fields=10)
    except ValueError:
        return None
    return {key: values[0] for key, values in fields.items()}


def _unframed(send: Send) -> Send:
    """Forbid other pages to show this one in a frame, where they could guide somebody's clicks."""

    async def framed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("Content-Security-Policy", "frame-ancestors 'self'")
        await send(message)

    return framed


def _admitted(answer: Response, request: Request, gate: Gate, session: str) -> Response:
    secure = request.url.scheme == "https"
    answer.set_cookie(gate.cookie, session, path="/", httponly=True, samesite="strict", secure=secure)
    return answer


def _without_code(url: URL) -> str:
    """The address without its code, as a path: never another host."""
    kept = {key: values for key, values in parse_qs(url.query, keep_blank_values=True).items() if key != CODE}
    query = urlencode(kept, doseq=True)
    path = "/" + url.path.lstrip("/")
    return f"{path}?{query}" if query else path


def sorry(said: str, clean: str) -> str:
    """The page for a code that opens nothing."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Hybrid training: no access by this link</title>"
        "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;"
        "padding:0 1rem}</style>"
        f"<main><h1>This link does not unlock steering</h1><p>{escape(said)}</p><p>The operator code works as often as "
        "you like: open the Control page and type it under “Unlock steering”.</p>"
        f'<p><a href="{escape(clean, quote=True)}">Look at the dashboard</a></p></main></html>'
    )
