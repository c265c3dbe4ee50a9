"""docs/watching.md: every Python example on it runs, in the order of the page."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import end_agents
from trainer_core.telemetry.rundir import status

PAGE = Path(__file__).parents[2] / "docs" / "watching.md"


def test_every_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    program = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    end_agents(tmp_path)
    assert (status(tmp_path / "runs" / "mine").state, status(tmp_path / "runs" / "mine").step) == ("finished", 20)
    assert "['running', 'finished']" in done.stdout
