"""The server's edges: the port, foreign pages, malformed questions, the end."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.live import MODULES, STATIC
from app.views.runs import joined
from tests.app.conftest import Dashboard, write_run
from tests.app.rows import cycled


def test_a_port_in_use_is_one_sentence_and_exit_code_2(
    start_dashboard: Callable[..., Dashboard], runs_dir: Path
) -> None:
    port = start_dashboard().port
    second = subprocess.run(
        [sys.executable, "-m", "app", str(runs_dir), "--port", str(port), "--no-browser"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.strip() == (
        f"port {port} cannot be used on 127.0.0.1: address already in use; choose another with --port"
    )


ALONE = """
import os, sys
from streamlit.watcher.polling_path_watcher import PollingPathWatcher
from app.access import Gate
from app.server import build, config, free_port

def ready():
    print("polling:", len(PollingPathWatcher._executor._threads), flush=True)
    os._exit(0)

port = free_port(0)
build(port, Gate(), ready, lambda: None).run(config=config(port))
"""


def test_no_thread_looks_for_changed_files(runs_dir: Path) -> None:
    told = subprocess.run([sys.executable, "-c", ALONE], cwd=runs_dir, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip().splitlines()[-1:] == ["polling: 0"], told.stderr[-1000:]


def test_it_ends_quietly(start_dashboard: Callable[..., Dashboard]) -> None:
    dashboard = start_dashboard()
    assert dashboard.end(signal.SIGINT, timeout_s=5) in (0, -signal.SIGINT, 130)
    assert "Traceback" not in dashboard.output


def test_a_foreign_host_name_is_refused(shared: Dashboard) -> None:
    request = urllib.request.Request(shared.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 400


def test_plotly_is_served_once_and_cached_for_ever(shared: Dashboard) -> None:
    import plotly

    with urllib.request.urlopen(f"{shared.url}/live/asset/{plotly.__version__}/plotly.js", timeout=10) as got:
        assert "immutable" in got.headers["Cache-Control"]
        assert got.headers["Content-Encoding"] == "gzip"


def test_a_page_names_what_it_fetches_first_and_all_of_it_is_there(shared: Dashboard) -> None:
    with urllib.request.urlopen(shared.url, timeout=10) as got:
        links = got.headers["Link"].split(", ")
    assert sum("as=script" in link for link in links) == 1
    for link in links:
        with urllib.request.urlopen(shared.url + link[1 : link.index(">")], timeout=10) as asset:
            assert asset.status == 200 and asset.headers["Content-Type"].startswith("text/javascript")
    assert {link.split("/")[-1].split(".js")[0] for link in links} == {"plotly", *MODULES}
    live = (STATIC / "live.js").read_text()
    assert set(re.findall(r'from "\./(\w+)\.js"', live)) == set(MODULES) - {"live"}
    with urllib.request.urlopen(f"{shared.url}/control", timeout=10) as other:
        assert "Link" not in other.headers, "Control has no charts of this kind"


def hear(url: str, origin: str | None, say: str | None = None) -> tuple[list[dict[str, object]], int]:
    """Messages until the server closes or has drawn, and the close code (0: still open)."""
    heard: list[dict[str, object]] = []
    try:
        with connect(url, origin=origin, open_timeout=10) as socket:  # type: ignore[arg-type]
            if say is not None:
                socket.send(say)
            while True:
                heard.append(json.loads(socket.recv(timeout=10)))
                if heard[-1]["t"] == "draw" and say is None:
                    return heard, 0
    except InvalidStatus as refused:
        return heard, refused.response.status_code
    except ConnectionClosed as closed:
        return heard, closed.rcvd.code if closed.rcvd else -1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """One dashboard for the tests that only ask."""
    folder = tmp_path_factory.mktemp("shared")
    write_run(folder / "runs" / "run", cycled(3))
    write_run(folder / "runs" / "a,b%", cycled(3))
    dashboard = Dashboard(folder / "runs", folder / "dashboard.log")
    yield dashboard
    dashboard.end()


@pytest.fixture
def socket_url(shared: Dashboard) -> str:
    return shared.url.replace("http", "ws") + "/live/ws?run=run"


def test_the_socket_tells_its_own_page_everything(socket_url: str) -> None:
    heard, code = hear(socket_url, socket_url.replace("ws:", "http:").split("/live")[0])
    assert code == 0
    assert heard[0]["t"] == "bind"
    assert "draw" in [message["t"] for message in heard]


def test_a_second_browser_at_the_same_page_is_sent_all_of_it_too(socket_url: str) -> None:
    origin = socket_url.replace("ws:", "http:").split("/live")[0]
    alone, _ = hear(socket_url, origin)
    with connect(socket_url, origin=origin, open_timeout=10) as first:  # type: ignore[arg-type]
        while json.loads(first.recv(timeout=10))["t"] != "draw":
            pass
        beside, _ = hear(socket_url, origin)
    assert {message["name"] for message in beside if message["t"] == "list"} == {
        message["name"] for message in alone if message["t"] == "list"
    }
    assert beside[0]["set"].keys() == alone[0]["set"].keys()  # type: ignore[attr-defined]
    assert beside[-1] == alone[-1]


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_the_socket_refuses_other_origins(socket_url: str, origin: str | None) -> None:
    heard, code = hear(socket_url, origin)
    assert (heard, code) == ([], 403)


@pytest.mark.parametrize(
    "say",
    [
        "not json",
        '{"last": 0}',
        '{"span": [5, 1]}',
        '{"span": [0, NaN]}',
        '{"visible": ["secrets"]}',
        '{"x": 1}',
        " " * 5000,
    ],
)
def test_a_malformed_question_closes_the_socket(socket_url: str, say: str) -> None:
    _, code = hear(socket_url, socket_url.replace("ws:", "http:").split("/live")[0], say)
    assert code == 1007


def test_the_socket_finds_runs_beside_it_whatever_their_names(socket_url: str, shared: Dashboard) -> None:
    url = socket_url + "&page=compare&with=" + urllib.parse.quote(joined(["a,b%"]))
    heard, _ = hear(url, shared.url)
    lists = [message["items"] for message in heard if message["t"] == "list"]
    assert "a,b%" in json.dumps(lists)


def test_an_unknown_run_is_said(socket_url: str) -> None:
    url = socket_url.replace("run=run", "run=../other")
    _, code = hear(url, socket_url.replace("ws:", "http:").split("/live")[0])
    assert code == 4404
