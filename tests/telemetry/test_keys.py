"""Named keys: made, listed and revoked as files; nothing half-written, nothing open to others, no name twice."""

import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from tests.conftest import Hybrid
from trainer_core.cli import main
from trainer_core.spec.errors import RunError, UserError
from trainer_core.telemetry import keys, listening
from trainer_core.telemetry.keys import Holder, Keyring, create, listed, make_keys, read_held, read_key, revoke


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_before_its_run_and_carries_the_servers_public_key(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "to-come"
    path = create(run_dir, "ann", "viewer", now=12.0)
    held = read_held(path)
    (known,) = listed(run_dir)
    assert (known.name, known.role, known.created, known.public) == ("ann", "viewer", 12.0, held.public)
    assert held.server == read_key(run_dir, "server").public
    assert zmq.curve_public(held.secret.encode()).decode() == held.public, "the two halves belong together"
    assert mode(path) == mode(run_dir / "keys" / "public.json") == 0o600 and mode(run_dir / "keys") == 0o700
    assert held.secret not in (run_dir / "keys" / "public.json").read_text()


def test_a_revoked_key_is_gone_and_its_name_is_free_for_another(tmp_path: Path) -> None:
    first = read_held(create(tmp_path, "ann", "viewer"))
    create(tmp_path, "bob", "operator", tmp_path / "bob.json")
    assert revoke(tmp_path, "ann").public == first.public
    assert [key.name for key in listed(tmp_path)] == ["bob"]
    assert not (tmp_path / "keys" / "ann.key").exists() and (tmp_path / "bob.json").exists()
    assert read_held(create(tmp_path, "ann", "operator")).public != first.public


@pytest.mark.parametrize(
    "name", ["server", "operator", "viewer", "", "a b", "../ann", "-ann", "a" * 33, "ann.key", "ä"]
)
def test_names_that_are_reserved_or_none_make_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name") as told:
        create(tmp_path, name, "viewer")
    assert told.value.exit_code == 2
    assert not (tmp_path / "keys").exists()


def test_a_name_is_taken_once_and_a_file_is_never_overwritten(tmp_path: Path) -> None:
    create(tmp_path, "ann", "viewer")
    with pytest.raises(UserError, match="already has a key of that name"):
        create(tmp_path, "ann", "operator", tmp_path / "other.key")
    mine = tmp_path / "mine.key"
    mine.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        create(tmp_path, "bob", "viewer", mine)
    assert mine.read_text() == "mine" and [key.name for key in listed(tmp_path)] == ["ann"]
    assert not (tmp_path / "other.key").exists()


def test_a_key_that_could_not_be_listed_leaves_no_file(tmp_path: Path) -> None:
    create(tmp_path, "ann", "viewer")
    (tmp_path / "keys" / "public.json").write_text("[{")
    with pytest.raises(RunError, match=r"public\.json"):
        create(tmp_path, "bob", "viewer")
    assert not (tmp_path / "keys" / "bob.key").exists()
    assert not [path for path in (tmp_path / "keys").iterdir() if path.name.startswith(".public")]


def test_many_at_once_lose_no_key(tmp_path: Path) -> None:
    names = [f"key-{i}" for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: create(tmp_path, name, "viewer"), names))
        list(pool.map(lambda name: revoke(tmp_path, name), names[:6]))
    assert sorted(key.name for key in listed(tmp_path)) == sorted(names[6:])


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o620, 0o666])
def test_files_that_others_could_read_or_write_are_refused(tmp_path: Path, loose: int) -> None:
    path = create(tmp_path, "ann", "viewer")
    ring = Keyring(tmp_path)
    held = read_held(path)
    assert ring.holder(held.public) == Holder("ann", "viewer")
    path.chmod(loose)
    with pytest.raises(RunError, match=f"mode {loose:o}"):
        read_held(path)
    (tmp_path / "keys" / "public.json").chmod(loose)
    with pytest.raises(RunError, match=f"mode {loose:o}"):
        listed(tmp_path)
    assert ring.holder(held.public) is None
    assert ring.holder(read_key(tmp_path, "operator").public) == Holder("operator", "operator"), "the others stand"
    (tmp_path / "keys" / "public.json").chmod(0o600)
    assert ring.holder(held.public) == Holder("ann", "viewer")


def test_a_key_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(RunError, match="mode 755"):
        create(tmp_path, "ann", "viewer")


def test_the_keyring_reads_the_files_only_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = read_held(create(tmp_path, "ann", "viewer"))
    ring, reads = Keyring(tmp_path), list[Path]()
    really = keys.listed
    monkeypatch.setattr(keys, "listed", lambda run_dir: reads.append(run_dir) or really(run_dir))
    for _ in range(100):
        assert ring.holder(held.public) is not None
    assert len(reads) == 1
    revoke(tmp_path, "ann")
    reads.clear()
    assert ring.holder(held.public) is None and len(reads) == 1


def test_the_runs_own_keys_are_made_once(tmp_path: Path) -> None:
    make_keys(tmp_path)
    first = read_key(tmp_path, "operator")
    create(tmp_path, "ann", "viewer")
    make_keys(tmp_path)
    assert read_key(tmp_path, "operator") == first


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_makes_lists_and_revokes(hybrid: Hybrid, tmp_path: Path) -> None:
    run_dir = tmp_path / "r"
    made = hybrid("keys", "create", run_dir, "ann", "--role", "viewer")
    assert made.returncode == 0 and str(run_dir / "keys" / "ann.key") in made.stdout
    hybrid("keys", "create", run_dir, "bob", "--role", "operator", "--out", tmp_path / "bob.key")
    told = json.loads(hybrid("keys", "list", run_dir, "--json").stdout)
    assert [(key["name"], key["role"]) for key in told] == [("ann", "viewer"), ("bob", "operator")]
    assert set(told[0]) == {"name", "role", "created", "fingerprint"}
    assert told[0]["fingerprint"] in made.stdout
    shown = hybrid("keys", "list", run_dir).stdout
    assert "ann" in shown and "operator" in shown
    secret = read_held(tmp_path / "bob.key").secret
    assert secret not in made.stdout + shown + json.dumps(told)
    gone = hybrid("keys", "revoke", run_dir, "ann")
    assert gone.returncode == 0 and "ann is revoked" in gone.stdout
    assert [key.name for key in listed(run_dir)] == ["bob"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "r", "ann", "--role", "root"], "must be one of viewer, operator"),
        (["create", "r", "ann"], "--role"),
        (["create", "r", "viewer", "--role", "viewer"], "the run's own"),
        (["create", "file", "ann", "--role", "viewer"], "is a file"),
        (["create", "r", "ann", "--role", "viewer", "--out", "nowhere/ann.key"], "nowhere/ann.key: cannot be written"),
        (["list", "nowhere"], "no such run directory"),
        (["revoke", "nowhere", "ann"], "no such run directory"),
        (["revoke", "bare", "ann"], "has no keys"),
        (["revoke", "keyed", "ann"], "has no key of that name; it has bob"),
        (["revoke", "keyed", "operator"], "the run's own key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bare").mkdir()
    create(tmp_path / "keyed", "bob", "viewer")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hybrid", "keys", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and says in " ".join(capsys.readouterr().err.split())


def test_a_line_to_type_is_one_that_a_shell_takes(tmp_path: Path) -> None:
    """Of a directory with a blank in its name it was two words."""
    run_dir = tmp_path / "my runs"
    with pytest.raises(UserError, match=f"hybrid keys create '{run_dir}' NAME --role viewer$"):
        listening.permitted(run_dir, "0.0.0.0:7700")
    run_dir.mkdir()
    with pytest.raises(UserError, match=f"hybrid keys create '{run_dir}' NAME --role viewer$"):
        keys.revoke(run_dir, "ann")
