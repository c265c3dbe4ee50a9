"""The dashboard's one process: Streamlit, the live routes and the feeds on one loopback port. Knows no page content."""

import asyncio
import importlib
import os
import socket
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import bootstrap
from streamlit.web.server.starlette import App

from app.access import Gate, Policy, install
from app.columns import return_what_is_freed
from app.early import Early
from app.entrance import CODE, Entrance, access_routes
from app.live import assets, routes
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


LATE = ("pandas", "PIL.Image", "streamlit.emojis", "streamlit.material_icon_names", "app.components")
"""What the first run of a page imports; most of a second where nobody has done it before."""


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


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    runs_dir: Path
    port: int
    browser: bool = True
    read_only: bool = False
    policy: Policy | None = None
    run: str = ""
    """The run that the links open; empty: the newest."""


def run(asked: Asked) -> None:
    """Serve until interrupted."""
    return_what_is_freed()
    os.environ[RUNS_DIR] = str(asked.runs_dir)
    url = f"http://{HOST}:{asked.port}"
    gate = Gate(f"hybrid_session_{asked.port}", asked.read_only, asked.policy)

    def link() -> str:
        return f"{url}/?{urlencode({**({'run': asked.run} if asked.run else {}), CODE: gate.link()})}"

    def ready() -> None:
        print(f"Dashboard of {asked.runs_dir}: {url}", flush=True)
        if gate.read_only:
            print("Read-only: nobody can steer from it.", flush=True)
        first = url if gate.read_only else link()
        if not gate.read_only:
            print(f"Operator code: {gate.code}\nSteer at once, by a link that works once: {first}", flush=True)
        if asked.browser:
            webbrowser.open(first)

    def link_used() -> None:
        print(f"The link has been used. Another, that works once: {link()}", flush=True)

    build(asked.port, gate, ready, link_used).run(config=config(asked.port))


def build(port: int, gate: Gate, ready: Callable[[], None], link_used: Callable[[], None]) -> App:
    """The application, before it serves; ``ready`` is called (in a thread) once the port answers."""
    watched = watch()
    install(gate)
    PagesManager.uses_pages_directory = (
        False  # as st.navigation says later; before that, /control would bypass the frame
    )

    # Streamlit looks five times a second whether a config.toml has changed: more than half of what an idle server does.
    bootstrap._install_config_watchers = lambda flag_options: None
    hosts = gate.policy.hosts if gate.policy is not None else ()

    @asynccontextmanager
    async def lifespan(_app: App) -> AsyncIterator[dict[str, Any]]:
        if st.get_option("runner.postScriptGC"):
            raise RuntimeError("runner.postScriptGC must be off: it collects garbage after every fragment")
        warming = asyncio.create_task(asyncio.to_thread(_warm))
        announcing = asyncio.create_task(_announce(port, ready))
        yield {}
        announcing.cancel()
        await warming
        await asyncio.to_thread(watched.close)

    return App(
        Path(__file__).with_name("streamlit_app.py"),
        lifespan=lifespan,
        routes=[*routes(watched), *access_routes(gate)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS, *hosts], www_redirect=False),
            Middleware(Entrance, gate=gate, link_used=link_used),
            Middleware(Early),
        ],
    )


def _warm() -> None:
    """Do now what the first page would have to wait for."""
    assets()
    for name in LATE:
        importlib.import_module(name)


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
