"""Files of a whole run for download, written by a process of its own so that watching goes on. Draws nothing."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from app.feed import Feed, Watch
from app.views.exports import EXPORTS, Export
from app.views.settings import present_config
from trainer_core.spec.loading import to_toml
from trainer_core.spec.records import RunEnvironment, RunStarted
from trainer_core.telemetry.as_json import json_text

AT_ONCE = 2
"""Files that are written at a time; others wait."""
LONGEST_S = 900.0
PIECE = 1 << 20
"""Bytes sent at a time."""


class NoExport(Exception):
    """What was asked for cannot be had; one sentence."""


class Exports:
    """The route ``/live/export?run=NAME&kind=KIND``."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._free = asyncio.Semaphore(AT_ONCE)

    async def serve(self, request: Request) -> Response:
        """One file. What the browser names is looked up, never put into a command line."""
        name, kind = request.query_params.get("run", ""), request.query_params.get("kind", "")
        export = EXPORTS.get(kind)
        if export is None:
            return PlainTextResponse(f"kind = {kind[:40]}: must be one of {', '.join(EXPORTS)}", status_code=400)
        feed = await asyncio.to_thread(self._watch.feed, name)
        if feed is None:
            return PlainTextResponse(f"no run called {name[:80]}", status_code=404)
        headers = {"Content-Disposition": f'attachment; filename="{_plain(name)}.{export.ending}"'}
        if not export.words:
            await asyncio.to_thread(feed.wait, 30.0)
            try:
                return Response(_of_the_store(kind, feed), media_type=export.media, headers=headers)
            except NoExport as why:
                return PlainTextResponse(str(why), status_code=409)
        folder = Path(tempfile.mkdtemp(prefix="hybrid-export-"))
        try:
            async with self._free:
                file = await written(export, feed.run_dir, folder)
        except NoExport as why:
            shutil.rmtree(folder, ignore_errors=True)
            return PlainTextResponse(str(why), status_code=409)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        headers["Content-Length"] = str(file.stat().st_size)
        return StreamingResponse(_sent(file, folder), media_type=export.media, headers=headers)


def _of_the_store(kind: str, feed: Feed) -> str:
    """What is known without reading the journal again. Raises NoExport."""
    snapshot = feed.snapshot()
    started = snapshot.latest(RunStarted)
    if started is None:
        raise NoExport("the run has not told its settings yet")
    if kind == "config":
        config = present_config(snapshot)
        if config is None:
            raise NoExport("the settings of this run are of another version")
        return to_toml(config)
    said = {"run": feed.run_dir.name, "started": msgspec.structs.asdict(started)}
    return json_text({**said, "environment": snapshot.latest(RunEnvironment), "status": feed.status}, indent=2)


async def written(export: Export, run_dir: Path, folder: Path) -> Path:
    """The file of an export, written by a process of low priority. Raises NoExport with its last words."""
    out = folder / f"out.{export.ending}"
    words = [{"RUN": str(run_dir), "OUT": str(out)}.get(word, word) for word in export.words]
    nice = [found, "-n", "10"] if (found := shutil.which("nice")) else []
    target = out if export.printed else folder / "printed"
    with target.open("wb") as printed, (folder / "errors").open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            *nice, sys.executable, "-m", "trainer_core", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=printed, stderr=errors, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            async with asyncio.timeout(LONGEST_S):
                code = await child.wait()
        except TimeoutError:
            raise NoExport(f"it took longer than {LONGEST_S:g} s; use hybrid {export.words[0]}") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    if code != 0:
        said = (folder / "errors").read_text(errors="replace").strip().splitlines()
        raise NoExport(said[-1] if said else f"hybrid {export.words[0]} ended with exit code {code}")
    if export.from_heading:
        await asyncio.to_thread(_keep_from, out, export.from_heading)
    return out


def _keep_from(file: Path, heading: str) -> None:
    text = file.read_text(encoding="utf-8")
    at = text.rfind(f"\n{heading}")
    file.write_text(text[at + 1 :], encoding="utf-8")


async def _sent(file: Path, folder: Path) -> AsyncIterator[bytes]:
    """The file in pieces; it is gone afterwards, also when the browser went away."""
    try:
        with file.open("rb") as source:
            while piece := await asyncio.to_thread(source.read, PIECE):
                yield piece
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80] or "run"
