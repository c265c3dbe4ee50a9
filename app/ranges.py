"""What a chart shows as a file, at full resolution: CSV as a stream, or Parquet. Draws nothing."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import polars as pl
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from app.feed import Feed, Watch
from app.store import MEASURED, PHASES, Snapshot
from app.table import I64

PIECE = 50_000
"""Rows written at a time, so that a long run never holds up the charts of others."""


class BadRange(ValueError):
    """What is asked for is no range of a run."""


async def serve_range(request: Request, watch: Watch) -> Response:
    """``/live/range?run=NAME&signals=loss,grad_norm[&from=STEP&to=STEP][&format=csv|parquet]``."""
    asked = request.query_params
    name = asked.get("run", "")
    feed = await asyncio.to_thread(watch.feed, name)
    if feed is None:
        return PlainTextResponse(f"no run called {name[:80]}", status_code=404)
    read = await asyncio.to_thread(feed.wait, 30.0)
    if why := _unreadable(feed, read):
        return PlainTextResponse(why, status_code=503)
    try:
        low, high = (_step(asked.get(key), key) for key in ("from", "to"))
        table = await asyncio.to_thread(rows, feed.snapshot(), asked.get("signals", "loss").split(","), low, high)
        kind = asked.get("format", "csv")
        if kind not in ("csv", "parquet"):
            raise BadRange(f"format = {kind[:20]}: must be csv or parquet")
    except BadRange as error:
        return PlainTextResponse(str(error), status_code=400)
    file = {"Content-Disposition": f'attachment; filename="{_plain(name)}.{kind}"'}
    if kind == "parquet":
        return Response(await asyncio.to_thread(_parquet, table), media_type="application/octet-stream", headers=file)
    return StreamingResponse(_csv(table), media_type="text/csv; charset=utf-8", headers=file)


def _unreadable(feed: Feed, read: bool) -> str:
    """Why a file would not hold what it says it holds; empty: it does."""
    if not read or not feed.connection.whole:
        return feed.connection.error or "the run is still being read: ask again in a moment"
    return (feed.connection.error or "") if feed.snapshot().empty else ""


def rows(snapshot: Snapshot, signals: list[str], low: float | None, high: float | None) -> pl.DataFrame:
    """Every measured step between two steps, of all attempts; ``abandoned`` tells those that were rolled back.

    An empty cell was not measured; NaN was measured and is not a number. Raises BadRange.
    """
    unknown = [name for name in signals if name not in MEASURED]
    if unknown:
        raise BadRange(f"signals = {','.join(unknown)[:80]}: must be of {', '.join(MEASURED)}")
    if low is not None and high is not None and low > high:
        raise BadRange(f"from = {low:g} lies after to = {high:g}")
    steps = snapshot.steps
    taken = np.arange(steps.length)
    if low is not None or high is not None:
        spans = steps.window(-np.inf if low is None else low, np.inf if high is None else high)
        taken = np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop in spans)])
    values = {
        name: pl.Series(steps[name][taken])
        for name in dict.fromkeys(signals)
        if name not in ("step", "time", "attempt", "phase")
    }
    return pl.DataFrame(
        {
            "step": steps["step"][taken].astype(np.int64),
            "attempt": steps["attempt"][taken].astype(np.int64),
            "abandoned": snapshot.abandoned(steps, taken) if len(taken) else np.empty(0, dtype=np.bool_),
            "phase": [PHASES[int(code)].value for code in steps["phase"][taken]],
            "time": steps["time"][taken],
            **{name: _told_apart(snapshot, column, name, taken) for name, column in values.items()},
        }
    )


def _told_apart(snapshot: Snapshot, column: pl.Series, name: str, taken: I64) -> pl.Series:
    """NaN where the run said so, null where nothing was measured; the store's columns hold NaN for both."""
    steps, attempts = snapshot.steps["step"][taken], snapshot.steps["attempt"][taken]
    said = np.zeros(len(taken), dtype=np.bool_)
    for found in snapshot.not_finite:
        if found.signal == name:
            said |= (attempts == found.attempt) & (steps >= found.first_step) & (steps <= found.last_step)
    return pl.select(pl.when(column.is_not_nan() | pl.Series(said)).then(column)).to_series()


def _step(text: str | None, key: str) -> float | None:
    if text is None:
        return None
    try:
        return float(int(text))
    except (ValueError, OverflowError):
        raise BadRange(f"{key} = {text[:20]}: must be a whole step") from None


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80] or "run"


def _parquet(table: pl.DataFrame) -> bytes:
    into = io.BytesIO()
    table.write_parquet(into)
    return into.getvalue()


async def _csv(table: pl.DataFrame) -> AsyncIterator[str]:
    yield table.head(0).write_csv()
    for start in range(0, table.height, PIECE):
        yield await asyncio.to_thread(table.slice(start, PIECE).write_csv, include_header=False)
