"""Parts of a page that redraw themselves keep their place."""

import re
from pathlib import Path

import app

ROOT = Path(app.__file__).parent


def test_nothing_but_a_part_is_a_fragment() -> None:
    """A bare one moves what stands beside it when it is lost on the way to the browser."""
    found = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if re.search(r"\bst\.fragment\b", path.read_text())
    }
    assert found == {"parts.py", "bench/naive.py"}
