"""Files of a chart: what cannot be told is refused in words, never left out in silence."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from app.feed import Feed, Watch
from app.ranges import serve_range
from tests.app.rows import Script, cycled


@pytest.fixture
def watch(runs_dir: Path) -> Iterator[Watch]:
    held = Watch(runs_dir)
    yield held
    held.close()


def asked(watch: Watch, **query: str) -> tuple[int, str]:
    """Status and text of an answer; nothing of a file."""
    scope = {"type": "http", "method": "GET", "path": "/live/range", "query_string": urlencode(query).encode(),
             "headers": []}  # fmt: skip
    answer = asyncio.run(serve_range(Request(scope), watch))
    return answer.status_code, bytes(answer.body).decode() if isinstance(answer, PlainTextResponse) else ""


def test_a_run_that_cannot_be_read_is_no_empty_file(runs_dir: Path, watch: Watch) -> None:
    (runs_dir / "broken").mkdir()
    (runs_dir / "broken" / "journal.db").write_bytes(b"this is no database " * 500)
    status, said = asked(watch, run="broken")
    assert status == 503 and "journal.db" in said


def test_a_run_that_is_still_being_read_is_no_short_file(
    written_run: Callable[[str, Script], Path], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_run("run", cycled(2))
    assert asked(watch, run="run")[0] == 200
    monkeypatch.setattr(Feed, "wait", lambda _feed, _timeout_s: False)
    assert asked(watch, run="run") == (503, "the run is still being read: ask again in a moment")
