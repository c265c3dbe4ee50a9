"""``python -m app RUNS_DIR``: start the dashboard. Knows only its arguments."""

import argparse
import contextlib
import sys
from pathlib import Path

from app.server import PortInUse, free_port, run


def main() -> int:
    """Parse, check the port, serve."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Watch and steer training runs in the browser.")
    parser.add_argument("runs_dir", nargs="?", default="runs", type=Path, help="directory that holds the runs")
    parser.add_argument("--port", type=int, default=8501, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    asked = parser.parse_args()
    if asked.runs_dir.exists() and not asked.runs_dir.is_dir():
        print(f"{asked.runs_dir}: is a file; give the directory that holds the runs", file=sys.stderr)
        return 2
    try:
        port = free_port(asked.port)
    except PortInUse as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is meant to end
        run(asked.runs_dir, port, browser=not asked.no_browser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
