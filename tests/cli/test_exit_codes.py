"""One rule for every command: 2 when what was given is missing or is not what is needed, 1 when it is and it failed.

What was bad input has changed nothing: no file and no folder is there that was not.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.cli.conftest import Here
from tests.conftest import Hybrid
from tests.telemetry.examples import step_record
from trainer_core.cli import app
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.rundir import claim

BAD_INPUT: list[str] = [
    "demo --port 70000",
    "demo --steps 0 --no-browser",
    "demo --steps 20000000 --no-browser",
    "demo --runs-dir file --no-browser",
    "train nonsense",
    "train ./mine.py:make",
    "train digits --steps 0",
    "train digits --preset nonsense",
    "train digits --config none.toml",
    "train digits --config folder",
    "train digits --set full_steps",
    "train digits --set full_steps=0",
    "train digits --resume",
    "train digits --resume --run-dir none",
    "train digits --resume --run-dir folder",
    "train digits --resume --run-dir file",
    "train digits --run-dir run",
    "train digits --run-dir file",
    "train digits --run-dir new --baseline none",
    "train digits --plain --baseline run",
    "train code_lm --data none --run-dir new",
    "train code_lm --data file --run-dir new",
    "train digits --run-dir new --listen nonsense:x",
    "dashboard --port 70000",
    "dashboard file",
    "dashboard runs --access none.toml",
    "serve none",
    "serve folder",
    "serve file",
    "serve run --listen 0.0.0.0",
    "send none pause",
    "send folder pause",
    "send file pause",
    "send run",
    "send run nonsense",
    "send --connect 127.0.0.1 --key bob.json pause",
    "send --connect 127.0.0.1:7700 --key none.key pause",
    "watch none",
    "watch folder",
    "watch file",
    "watch run --every 0",
    "watch --connect 127.0.0.1:7700 --key none.key",
    "runs none",
    "runs file",
    "report none",
    "report folder",
    "report file",
    "report run --baseline none",
    "report run --baseline folder",
    "export none out.csv",
    "export folder out.csv",
    "export file out.csv",
    "export run",
    "export run out.txt",
    "export run none/out.csv",
    "export run folder.csv",
    "export run out.csv --kind nonsense",
    "export run --tensorboard file",
    "export run --tensorboard events --kind metrics",
    "export run --tensorboard events --all",
    "export run out.csv --journal nonsense",
    "keys create run ann --role nonsense",
    "keys create file ann --role viewer",
    "keys create run operator --role operator",
    "keys create new ann --role viewer --out none/ann.key",
    "keys create new ann --role viewer --out file",
    "keys list none",
    "keys list file",
    "keys revoke none ann",
    "keys revoke run nobody",
    "config check none.toml",
    "config check folder",
    "config check broken.toml",
    "config check file --preset nonsense",
    "config check broken.toml --task nonsense",
    "bench telemetry --from none.json",
    "bench telemetry --from file",
    "bench telemetry --from none.json --quick",
    "bench telemetry --quick --write none/page.md",
    "bench telemetry --quick --write folder",
    "bench dashboard --from none.json",
    "bench dashboard --from file",
    "bench dashboard --write none/page.md",
    "bench engine --task nonsense",
    "bench engine --from none.json",
    "bench engine --from file",
    "nonsense",
    "report",
    "report run --nonsense",
]
FAILED: list[str] = [
    "train digits --resume --run-dir damaged",
    "train digits --run-dir held",
    "serve damaged",
    "send damaged pause",
    "watch damaged",
    "report damaged",
    "report run --baseline damaged",
    "export damaged out.csv",
    "export damaged --tensorboard events",
]
"""What was given is a run, and the run fails."""


def words_of(command: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command, groups spelled out: "keys create"."""
    inner: dict[str, Any] | None = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(before)
        return
    for name, one in inner.items():
        yield from words_of(one, (*before, name))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a run, a damaged one, one that is held, a folder and files."""
    for name in ("run", "held"):
        (tmp_path / name).mkdir()
        writer = JournalWriter(tmp_path / name)
        writer.append([(1.0, 0, step_record(1))])
        writer.close()
    (tmp_path / "held" / "journal.db").unlink()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.db").write_bytes(b"no database " * 1000)
    (tmp_path / "damaged" / "config.toml").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("what is no run, no TOML { and no JSON")
    (tmp_path / "broken.toml").write_text("[training\n")
    monkeypatch.chdir(tmp_path)
    lock = claim(tmp_path / "held")
    yield tmp_path
    lock.close()


def there(place: Path) -> dict[str, bytes | None]:
    """Every file with its content, every folder. SQLite's shared memory comes and goes with those who read."""
    found = {str(path): path.read_bytes() if path.is_file() else None for path in place.rglob("*")}
    return {path: content for path, content in found.items() if not path.endswith(("-shm", "-wal", "-journal"))}


def test_the_table_has_every_command() -> None:
    commands = set(words_of(typer.main.get_command(app)))
    assert {"train", "keys revoke", "bench dashboard"} <= commands
    for command in commands:
        assert [line for line in BAD_INPUT if line.startswith(f"{command} ")], command


@pytest.mark.parametrize("line", BAD_INPUT)
def test_bad_input_is_exit_code_2_in_words_and_changes_nothing(
    place: Path, here: Callable[..., Here], hybrid: Hybrid, line: str
) -> None:
    before = there(place)
    another = line.startswith(("dashboard", "bench dashboard"))  # a process of its own
    said = hybrid(*line.split(), cwd=place) if another else here(*line.split())
    assert said.returncode == 2, said
    assert said.stderr.strip() and "Traceback" not in said.stderr
    assert there(place) == before


@pytest.mark.parametrize("line", FAILED)
def test_what_is_right_and_fails_is_exit_code_1_with_one_sentence(
    place: Path, here: Callable[..., Here], line: str
) -> None:
    said = here(*line.split())
    assert said.returncode == 1, said
    assert said.stderr.startswith("hybrid: ") and len(said.stderr.strip().splitlines()) == 1


def test_what_is_done_is_exit_code_0(place: Path, here: Callable[..., Here]) -> None:
    for line in ("runs run", "report run --json", "export run out.csv", "keys list run", "--version"):
        said = here(*line.split())
        assert said.returncode == 0, said
