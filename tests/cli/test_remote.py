"""``--listen``, ``--connect``, ``--key``: a run elsewhere is watched and steered as one here, or refused in words."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Here, Start, until
from tests.conftest import Hybrid
from tests.telemetry.trainers import Trainer
from tests.telemetry.wires import answered, dealer, endpoint, stranger
from trainer_core.telemetry.keys import create, listed


@pytest.fixture
def far(runs_dir: Path) -> Iterator[Trainer]:
    """A run that others may call; it is this machine that calls, through the wildcard address."""
    run_dir = runs_dir / "r"
    create(run_dir, "ann", "viewer", run_dir / "ann.json")
    create(run_dir, "bob", "operator", run_dir / "bob.json")
    with Trainer(run_dir, listen="0.0.0.0") as trainer:
        until(lambda: (run_dir / "endpoint.json").exists(), "there is no agent")
        yield trainer


def there(run_dir: Path) -> str:
    """HOST:PORT as another machine would say it."""
    return str(endpoint(run_dir)["news"]).removeprefix("tcp://")


def test_send_and_watch_of_a_run_elsewhere(far: Trainer, hybrid: Hybrid, start: Start) -> None:
    far.steps(10)
    with dealer(far.run_dir, "questions", stranger()) as unknown:
        assert answered(unknown, [b"who is there?"], within_ms=300) is None
    at, ann, bob = there(far.run_dir), far.run_dir / "ann.json", far.run_dir / "bob.json"
    watching = start("watch", "--connect", at, "--key", ann, "--every", "1", "--last", "4")
    assert watching.stdout is not None
    lines = iter(watching.stdout.readline, "")
    assert next(line for line in lines if "step 10" in line and "FULL" in line)
    sent = hybrid("send", "--connect", at, "--key", bob, "set-threshold", "confidence_threshold", "0.9")
    assert sent.returncode == 0 and "applied" in sent.stdout, sent.stderr
    wanted = {"set-threshold", "turned away so far: 1 unauthenticated"}
    while wanted:
        line = next(lines)
        wanted -= {text for text in wanted if text in line}
    denied = hybrid("send", "--connect", at, "--key", ann, "pause")
    assert denied.returncode == 3 and "may watch, not give commands" in denied.stdout
    far.end()
    rest, err = watching.communicate(timeout=30)
    assert (rest.splitlines()[-1], err) == ("== finished at step 10: finished by the test", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["watch"], "say which run"),
        (["watch", "r", "--connect", "h:1"], "give one of the two"),
        (["watch", "--connect", "127.0.0.1:7700"], "needs --key FILE"),
        (["watch", "r", "--key", "k"], "goes with --connect"),
        (["send", "--connect", "127.0.0.1:7700", "pause"], "needs --key FILE"),
        (["send", "r"], "say what to tell"),
        (["watch", "--connect", "127.0.0.1:7700", "--key", "no.key"], "no.key cannot be read"),
        (["watch", "--connect", "nonsense", "--key", "ann.json"], "write HOST:PORT"),
        (["serve", "r", "--listen", "0.0.0.0"], "hybrid keys create r NAME"),
        (["train", "digits", "--listen", "0.0.0.0"], "say which run with --run-dir"),
        (["train", "digits", "--run-dir", "new", "--listen", "0.0.0.0"], "hybrid keys create new NAME"),
    ],
)
def test_what_cannot_be_called_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Callable[..., Here], words: list[str], says: str
) -> None:
    trainer = Trainer(tmp_path / "r", serves=False, obeys=False)
    trainer.close()
    create(tmp_path / "keyed", "ann", "viewer", tmp_path / "ann.json")
    monkeypatch.chdir(tmp_path)
    said = here(*words)
    assert said.returncode == 2 and says in " ".join(said.stderr.split())
    assert not listed(tmp_path / "r") and not (tmp_path / "new").exists()


def test_serve_says_where_it_listens(start: Start, tmp_path: Path) -> None:
    create(tmp_path / "runs" / "old", "ann", "viewer")
    trainer = Trainer(tmp_path / "runs" / "old", serves=False)
    trainer.end()
    serving = start("serve", tmp_path / "runs" / "old", "--listen", "127.0.0.1")
    assert serving.stdout is not None
    said = serving.stdout.readline()
    assert said.strip().endswith("at " + there(tmp_path / "runs" / "old")), said
    serving.terminate()
    assert serving.wait(10) == 0
