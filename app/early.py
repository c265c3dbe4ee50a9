"""Names in a page's answer what it is going to fetch, so that it comes while Streamlit starts. Knows only HTTP."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.live import preloads
from app.screens.registry import PAGES


class Early:
    """Adds a ``Link`` header to pages that have charts; everything else passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._links = ", ".join(preloads())
        self._paths = {"/", *(f"/{name}" for name in PAGES)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                MutableHeaders(scope=message).append("Link", self._links)
            await send(message)

        page = scope["type"] == "http" and Request(scope).url.path in self._paths
        await self._app(scope, receive, named if page else send)
