"""A run directory whose agents are ended after the test: by design they outlive their trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import end_agents


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty directory of one run; an agent lingers for seconds instead of minutes."""
    monkeypatch.setenv("HYBRID_AGENT_LINGER_S", "2")
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    yield folder
    end_agents(tmp_path)
