"""The dashboard's one process: Streamlit, the live routes and the feeds on one loopback port. Knows no page content."""

import asyncio
import os
import socket
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web.server.starlette import App

from app.live import routes
from app.theme import TOKENS
from app.watching import RUNS_DIR, watch

HOST = "127.0.0.1"
HOSTS = ["127.0.0.1", "localhost"]
"""Names this server answers to; any other Host header is refused, so that no foreign page can reach it by rebinding."""


THEME = {
    "backgroundColor": "surface",
    "secondaryBackgroundColor": "raised",
    "textColor": "text",
    "borderColor": "line",
    "primaryColor": "accent",
}
"""Streamlit's colours from ours, so that forms and charts are of one piece in both modes."""


class PortInUse(Exception):
    """The port asked for cannot be had."""


def free_port(port: int) -> int:
    """``port`` if it can be bound (0: any free one). Raises PortInUse with one clear sentence."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortInUse(
                f"port {port} cannot be used on {HOST}: {_reason(error)}; choose another with --port"
            ) from None
        return int(probe.getsockname()[1])


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is no port number"


def run(runs_dir: Path, port: int, browser: bool) -> None:
    """Serve until interrupted."""
    os.environ[RUNS_DIR] = str(runs_dir)

    def ready() -> None:
        url = f"http://{HOST}:{port}"
        print(f"Dashboard of {runs_dir}: {url}", flush=True)
        if browser:
            webbrowser.open(url)

    build(port, ready).run(config=config(port))


def build(port: int, ready: Callable[[], None]) -> App:
    """The application, before it serves; ``ready`` is called (in a thread) once the port answers."""
    watched = watch()
    PagesManager.uses_pages_directory = (
        False  # as st.navigation says later; before that, /control would bypass the frame
    )

    @asynccontextmanager
    async def lifespan(_app: App) -> AsyncIterator[dict[str, Any]]:
        if st.get_option("runner.postScriptGC"):
            raise RuntimeError("runner.postScriptGC must be off: it collects garbage after every fragment")
        announcing = asyncio.create_task(_announce(port, ready))
        yield {}
        announcing.cancel()
        await asyncio.to_thread(watched.close)

    return App(
        Path(__file__).with_name("streamlit_app.py"),
        lifespan=lifespan,
        routes=routes(watched),
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
    )


async def _announce(port: int, ready: Callable[[], None]) -> None:
    """Call ``ready`` when the port accepts connections: uvicorn listens only after the lifespan has begun."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await asyncio.to_thread(ready)
        return


def config(port: int) -> dict[str, Any]:
    """Streamlit's options for this app."""
    return {
        "server.address": HOST,
        "server.port": port,
        "server.headless": True,
        "server.showEmailPrompt": False,
        "server.fileWatcherType": "none",
        "server.enableWebsocketCompression": True,
        "runner.postScriptGC": False,
        "runner.magicEnabled": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "logger.level": "warning",
        **{
            f"theme.{mode}.{option}": colours[token]
            for mode, colours in TOKENS.items()
            for option, token in THEME.items()
        },
    }
