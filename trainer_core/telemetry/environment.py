"""Where a process came from: commit, packages, host, command line. Reads no environment variable, keeps no secret."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainer_core.spec.records import RunEnvironment

PACKAGES = ("hybrid-predictive-trainer", "torch", "numpy", "scikit-learn", "safetensors", "msgspec", "polars", "pyzmq")
"""Said beside whatever else is imported under its own name."""
_GIT_S = 3.0
_SECRET = re.compile(r"token(?!s|iz)|secret|passw|credential|api[-_]?key|auth(?!or)", re.IGNORECASE)
_HIDDEN = "***"


def environment(step: int, device: str, directory: Path | None = None) -> RunEnvironment:
    """The present process. ``directory`` (default: the working directory) is where git is asked."""
    where = Path.cwd() if directory is None else Path(directory)
    commit, dirty = git(where)
    return RunEnvironment(
        step=step,
        command_line=shown(sys.orig_argv if sys.argv[:1] == ["-c"] else (sys.executable, *sys.argv)),
        directory=str(where),
        host=platform.node(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        device=device,
        packages=versions((*PACKAGES, *{name.partition(".")[0] for name in list(sys.modules)})),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        git_commit=commit,
        git_dirty=dirty,
    )


def shown(words: Sequence[str]) -> tuple[str, ...]:
    """A command line without the values of flags that name a secret, nor credentials inside an address."""
    said: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = bool(_SECRET.search(name)) and (name.startswith("-") or bool(equals))
        if hide_next and not word.startswith("-"):
            said.append(_HIDDEN)
        elif secret and equals:
            said.append(f"{name}={_HIDDEN}")
        else:
            said.append(re.sub(r"(\w+://)[^/@\s]+@", rf"\1{_HIDDEN}@", word))
        hide_next = secret and not equals
    return tuple(said)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Version by name of those that are installed packages."""
    found = {}
    for name in sorted(set(names) - set(sys.stdlib_module_names)):
        if name and not name.startswith("_"):
            try:
                found[name] = importlib.metadata.version(name)
            except (importlib.metadata.PackageNotFoundError, ValueError):
                continue
    return found


def git(where: Path) -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it); None for what git does not say."""
    commit = _asked(where, "rev-parse", "HEAD")
    if not commit:
        return None, None
    changed = _asked(where, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changed is None else bool(changed)


def _asked(where: Path, *words: str) -> str | None:
    try:
        said = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(where), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() if said.returncode == 0 else None
