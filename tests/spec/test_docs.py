"""Claims about the generated documents: current, complete, and checked by the command that writes them."""

import subprocess
import sys
from pathlib import Path

from trainer_core.spec.config import ALL_SETTINGS
from trainer_core.spec.guards import asked_for
from trainer_core.spec.phases import Phase
from trainer_core.spec.render import configuration_markdown, documents, mermaid, phases_markdown, stale
from trainer_core.spec.transitions import TRANSITIONS, guard_name

ROOT = Path(__file__).parents[2]


def test_the_documents_in_docs_are_current() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "trainer_core.spec.render", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stderr) == (0, "")


def test_a_stale_or_missing_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "phases.md").write_text(documents()["phases.md"] + "more\n")
    assert [p.name for p in stale(tmp_path)] == ["phases.md", "configuration.md"]


def test_every_guard_and_transition_is_explained() -> None:
    text = phases_markdown()
    for row in TRANSITIONS:
        for guard in row.guards:
            assert guard.__doc__ and guard.__doc__ in text
            assert f"`{guard_name(guard)}`" in text
    assert asked_for(Phase.FULL).__doc__ in text


def test_the_diagram_draws_every_pair_of_phases_once() -> None:
    arrows = [line for line in mermaid().splitlines() if "-->" in line and "[*]" not in line]
    pairs = {(r.source, r.target) for r in TRANSITIONS}
    assert len(arrows) == len(pairs)
    assert all(any(f"{s} --> {t}:" in arrow for arrow in arrows) for s, t in pairs)


def test_every_setting_is_documented_with_its_meaning() -> None:
    text = configuration_markdown()
    assert all(f"`{s.name}`" in text and s.meaning in text for s in ALL_SETTINGS)
