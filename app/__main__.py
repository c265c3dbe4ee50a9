"""``python -m app RUNS_DIR``: start the dashboard. Knows only its arguments."""

import argparse
import contextlib
import sys
from pathlib import Path

from app.access import read_policy
from app.login import check
from app.server import Asked, PortInUse, free_port, run
from trainer_core.spec.errors import UserError


def main() -> int:
    """Parse, check the port, serve."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Watch and steer training runs in the browser.")
    parser.add_argument("runs_dir", nargs="?", default="runs", type=Path, help="directory that holds the runs")
    parser.add_argument("--port", type=int, default=8501, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--run", default="", help="the run that the links open; the newest when left out")
    parser.add_argument("--read-only", action="store_true", help="nobody can steer from this dashboard")
    parser.add_argument(
        "--access", type=Path, help="access file: who may look and steer after a login (docs/access.md)"
    )
    asked = parser.parse_args()
    if asked.runs_dir.exists() and not asked.runs_dir.is_dir():
        print(f"{asked.runs_dir}: is a file; give the directory that holds the runs", file=sys.stderr)
        return 2
    try:
        port = free_port(asked.port)
        policy = read_policy(asked.access) if asked.access is not None else None
        if policy is not None:
            check()
    except (PortInUse, UserError) as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is meant to end
        run(Asked(asked.runs_dir, port, not asked.no_browser, asked.read_only, policy, asked.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
