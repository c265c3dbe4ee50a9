"""``hybrid train code_lm --data``: any folder with enough Python source, however it is cut into files."""

import zlib
from pathlib import Path

import pytest

from trainer_core.spec.errors import UserError
from trainer_core.tasks.code_lm import read_source

TEXT = "value = 1\n" * 1000
_NAMES = [f"f{i}.py" for i in range(1000)]
HELD = next(name for name in _NAMES if zlib.crc32(name.encode()) % 1000 < 50)
TRAINED = next(name for name in _NAMES if zlib.crc32(name.encode()) % 1000 >= 50)


@pytest.mark.parametrize(
    "files",
    [{HELD: TEXT}, {TRAINED: TEXT}, {TRAINED: TEXT, HELD: "x = 1\n"}, {TRAINED: "x = 1\n", HELD: TEXT}],
    ids=["all of it is held out", "none is", "next to none is", "all but a line is"],
)
def test_enough_text_is_enough_whatever_its_files_are_called(tmp_path: Path, files: dict[str, str]) -> None:
    """It was refused as too little, with a number of bytes above the one that was asked for."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    train, held_out = read_source(tmp_path)
    assert len(train) > 9 * len(held_out) > 9 * 65
    assert len(train) + len(held_out) >= len(TEXT)


def test_too_little_text_is_named_with_what_there_is_and_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"6 bytes in \.py files; at least 2600 are needed"):
        read_source(tmp_path)
