"""Claims about configuration: the document's blocks load, presets are its tables, and mistakes are named."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_core.spec.config import ALL_SETTINGS, SETTINGS, Config, Setting, live_values, with_live_setting
from trainer_core.spec.config import with_live_settings as with_several
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.loading import load, resolve, tables_of, to_toml
from trainer_core.spec.presets import PRESETS

BLOCKS = sorted((Path(__file__).parent / "blocks").glob("*.toml"))

HOMES = {
    ("learning_rate", "schedule"): "learning_rate_schedule.type",
    ("learning_rate", "warmup_steps"): "learning_rate_schedule.warmup_steps",
    ("learning_rate", "stable_steps"): "learning_rate_schedule.stable_steps",
    ("learning_rate", "batch_size"): "training.batch_size",
    ("learning_rate", "max_predict_steps"): "hybrid_trainer_config.max_predict_steps",
    ("optimizer", "learning_rate"): "learning_rate.initial",
    ("optimizer", "dropout_rate"): "model.dropout_rate",
    ("optimizer", "early_stopping_patience"): "training.early_stopping_patience",
    ("optimizer", "hidden_dim"): "model.hidden_dim",
    ("optimizer", "num_layers"): "model.num_layers",
    ("", "warmup_steps"): "hybrid_trainer_config.warmup_steps",
    ("", "full_steps"): "hybrid_trainer_config.full_steps",
    ("", "divergence_threshold"): "hybrid_trainer_config.divergence_threshold",
    ("", "hidden_dim"): "model.hidden_dim",
    ("", "num_layers"): "model.num_layers",
    ("", "initial_lr"): "learning_rate.initial",
    ("", "weight_decay"): "optimizer.weight_decay",
    ("", "dropout_rate"): "model.dropout_rate",
    ("", "max_steps"): "training.max_steps",
    ("", "gradient_clip_norm"): "optimizer.gradient_clip_norm",
    ("", "use_mixed_precision"): "training.use_mixed_precision",
    ("", "loss_scale"): "training.loss_scale",
    ("", "use_residual"): "model.use_residual",
    ("", "normalization"): "model.normalization",
    ("", "weight_init"): "model.weight_init",
}
"""Where a key belongs that the document wrote under another header, or under none."""

REFERENCE_TABLE: dict[str, tuple[Any, Any, Any]] = {
    "hybrid_trainer_config.warmup_steps": (100, 200, 500),
    "hybrid_trainer_config.full_steps": (20, 30, 50),
    "hybrid_trainer_config.max_predict_steps": (60, 80, 100),
    "hybrid_trainer_config.confidence_threshold": (0.85, 0.87, 0.90),
    "hybrid_trainer_config.divergence_threshold": (3.0, 2.5, 2.0),
    "learning_rate.initial": (1e-4, 5e-5, 1e-5),
    "predictor_config.type": ("Linear", "RSSM", "RSSM"),
    "predictor_config.ensemble_size": (1, 3, 5),
}
"""The document's "Hyperparameter Reference Table": small, medium, large."""


def value(config: Config, path: str) -> Any:
    """The value at ``section.key``."""
    section, key = path.split(".")
    return getattr(getattr(config, section), key)


def entries(document: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(section, key, value) of everything in a block; section "" for keys without a header."""
    found = [("", k, v) for k, v in document.items() if not isinstance(v, dict)]
    return found + [(s, k, v) for s, t in document.items() if isinstance(t, dict) for k, v in t.items()]


def test_there_are_all_fifteen_blocks_of_the_document() -> None:
    assert len(BLOCKS) == 15


@pytest.mark.parametrize("file", BLOCKS, ids=lambda f: f.stem)
def test_a_block_of_the_document_loads_as_it_stands_and_every_key_lands_where_it_belongs(file: Path) -> None:
    loaded = load(file)
    written = entries(tomllib.loads(file.read_text()))
    for section, key, expected in written:
        home = HOMES.get((section, key), f"{section}.{key}")
        assert value(loaded.config, home) == expected, f"[{section}] {key}"
    changed = {f"{s}.{k}" for s, t in tables_of(loaded.config).items() for k, v in t.items()} - {
        f"{s}.{k}"
        for s, t in tables_of(Config()).items()
        for k, v in t.items()
        if value(loaded.config, f"{s}.{k}") == v
    }
    assert changed <= {HOMES.get((s, k), f"{s}.{k}") for s, k, _ in written}, "a key changed something else"
    moved = [(s, k) for s, k, _ in written if s and (s, k) in HOMES]
    assert len(loaded.notes) == len(moved)
    assert all(any(f"[{s}] {k}" in note for note in loaded.notes) for s, k in moved)


@pytest.mark.parametrize(("column", "preset"), [(0, "small"), (1, "medium"), (2, "large")])
def test_a_size_preset_is_its_column_of_the_reference_table(column: int, preset: str) -> None:
    config = resolve({"preset": preset}).config
    for path, row in REFERENCE_TABLE.items():
        assert value(config, path) == row[column], path
    assert config.learning_rate_schedule.type == "WarmupStableDecay"
    assert config.learning_rate_schedule.stable_steps == (5000, 10000, 20000)[column]
    assert config.learning_rate_schedule.warmup_steps == (100, 200, 500)[column]
    assert config.hybrid_trainer_config.policy == "document"


@pytest.mark.parametrize(
    ("preset", "block"),
    [("small", "01"), ("medium", "02"), ("large", "03"), ("specialist", "10"), ("generalist", "11")],
)
def test_a_preset_says_all_that_its_block_says(preset: str, block: str) -> None:
    file = next(f for f in BLOCKS if f.name.startswith(block))
    config = resolve({"preset": preset}).config
    for section, key, expected in entries(tomllib.loads(file.read_text())):
        assert value(config, HOMES.get((section, key), f"{section}.{key}")) == expected


def test_later_sources_win_and_the_rest_stays() -> None:
    file_like = {"preset": "medium", "full_steps": 33, "hybrid_trainer_config": {"max_predict_steps": 70}}
    loaded = resolve(file_like, overrides={"full_steps": "44"}, defaults={"training": {"batch_size": 5}})
    h = loaded.config.hybrid_trainer_config
    assert (h.full_steps, h.max_predict_steps, h.warmup_steps) == (44, 70, 200)
    assert loaded.config.training.batch_size == 5
    assert loaded.config.preset == "medium"


def bad(document: dict[str, Any], **more: Any) -> str:
    """The message of the ConfigError that ``document`` earns; its exit code is 2."""
    with pytest.raises(ConfigError) as caught:
        resolve(document, **more)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"full_stepz": 3}, ["full_stepz", "no such setting", "full_steps"]),
        ({"hybrid_trainer_config": {"colour": 3}}, ["[hybrid_trainer_config] colour", "no such setting"]),
        ({"hybrid_trainer": {"full_steps": 3}}, ["[hybrid_trainer]", "no such section", "hybrid_trainer_config"]),
        ({"full_steps": "many"}, ["full_steps", "'many'", "a whole number from 1 to"]),
        ({"full_steps": 2.5}, ["full_steps", "2.5", "a whole number"]),
        ({"full_steps": True}, ["full_steps", "True", "a whole number"]),
        ({"full_steps": 0}, ["full_steps", "0", "from 1"]),
        ({"confidence_threshold": 1.5}, ["confidence_threshold", "1.5", "from 0 to 1"]),
        ({"confidence_threshold": math.nan}, ["confidence_threshold", "nan", "from 0 to 1"]),
        ({"confidence_threshold": -math.inf}, ["confidence_threshold", "-inf"]),
        ({"predictor_config": {"type": "Oracle"}}, ["Oracle", "Linear, MLP, RSSM"]),
        ({"use_mixed_precision": 1}, ["use_mixed_precision", "1", "true or false"]),
        ({"type": "AdamW"}, ["type", "say which one is meant", "optimizer.type", "predictor_config.type"]),
        ({"preset": "huge"}, ["preset", "huge", "small, medium, large"]),
        ({"preset": 3}, ["preset", "3", "small"]),
        ({"gradient_norm_low": 20.0}, ["gradient_norm_low = 20", "gradient_norm_high = 10"]),
        ({"initial_lr": 1e-3, "learning_rate": {"initial": 1e-4}}, ["0.001", "0.0001", "also given"]),
    ],
)
def test_a_mistake_is_named_with_key_value_and_bound(document: dict[str, Any], words: list[str]) -> None:
    message = bad(document)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_overrides_are_held_to_the_same_bounds() -> None:
    assert "from 0 to 1" in bad({}, overrides={"confidence_threshold": "2"})
    assert "no such section" in bad({}, overrides={"models.hidden_dim": "2"})
    assert "say which" in bad({}, overrides={"type": "SGD"})
    assert resolve({}, overrides={"optimizer.type": "SGD", "initial": "none"}).config.optimizer.type == "SGD"


def test_a_file_that_cannot_be_read_or_parsed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("full_steps = = 3\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML: .*line 1"):
        load(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        load(broken)


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert resolve({"full_steps": 20.0}).config.hybrid_trainer_config.full_steps == 20


def drawn(setting: Setting) -> st.SearchStrategy[Any]:
    """Allowed values of a setting whose bounds stand alone."""
    if setting.choices:
        return st.sampled_from(setting.choices)
    if setting.type == "bool":
        return st.booleans()
    if setting.low is None or setting.high is None:
        return st.text("abc de", max_size=5)
    if setting.type == "int":
        return st.integers(int(setting.low), int(setting.high))
    return st.floats(setting.low, setting.high)


_JOINED = ("gradient_", "predictio", "grad_para", "disk_free", "memory_hi", "memory_cr", "gpu_tempe")
FREE = [s for s in ALL_SETTINGS if not (s.section in ("divergence_config", "health") and s.name[:9] in _JOINED)]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_configuration_survives_the_way_through_toml(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(FREE), max_size=12, unique_by=lambda s: (s.section, s.name)))
    document: dict[str, Any] = {"preset": data.draw(st.sampled_from(sorted(PRESETS)))}
    for setting in chosen:
        document.setdefault(setting.section, {})[setting.name] = data.draw(drawn(setting))
    config = resolve(document).config
    text = to_toml(config)
    again = resolve(tomllib.loads(text)).config
    assert again == config
    assert to_toml(again) == text


@pytest.mark.parametrize("setting", ALL_SETTINGS, ids=lambda s: f"{s.section}.{s.name}")
def test_every_setting_has_a_meaning_and_holds_its_own_default_and_bounds(setting: Setting) -> None:
    assert setting.meaning.endswith(".")
    path = f"{setting.section}.{setting.name}"
    assert SETTINGS[path] is setting
    if setting.default is not None:
        assert value(resolve({setting.section: {setting.name: setting.default}}).config, path) == setting.default
    if setting.low is not None and setting.high is not None:
        for outside in (setting.low - 1, setting.high * 2 + 1):
            number = int(outside) if setting.type == "int" else float(outside)
            assert setting.bounds in bad({setting.section: {setting.name: number}})


def test_a_live_setting_is_held_to_its_bounds_and_rules_and_changes_nothing_else() -> None:
    config = Config()
    changed = with_live_setting(config, "confidence_threshold", 0.9)
    assert changed.hybrid_trainer_config.confidence_threshold == 0.9
    assert with_live_setting(changed, "confidence_threshold", 0.85) == config
    for name, number, words in [
        ("confidence_threshold", 1.5, "from 0 to 1"),
        ("confidence_threshold", math.nan, "from 0 to 1"),
        ("full_steps", 2.5, "a whole number"),
        ("warmup_steps", 5, "cannot be changed while training runs"),
        ("nothing", 5, "no such setting"),
        ("gradient_norm_high", 500.0, "gradient_norm_extreme_high"),
    ]:
        with pytest.raises(ConfigError, match=words):
            with_live_setting(config, name, number)


def test_several_live_settings_are_judged_together() -> None:
    wanted = {"gradient_norm_high": 500.0, "gradient_norm_extreme_high": 1000.0}
    assert live_values(with_several(Config(), wanted)) == live_values(Config()) | wanted


@pytest.mark.parametrize("setting", ALL_SETTINGS, ids=lambda s: f"{s.section}.{s.name}")
def test_the_bounds_that_a_refusal_names_are_the_bounds(setting: Setting) -> None:
    """beta2 = 1 was refused with "a number from 0 to 1", a seed with a bound of six digits."""
    if setting.low is None or setting.high is None or setting.type == "bool":
        return
    said = setting.bounds.rpartition(" from ")[2].split(" to ")
    assert [float(bound) for bound in said] == [setting.low, setting.high]


def test_a_value_just_out_of_bounds_is_not_shown_as_the_bound() -> None:
    with pytest.raises(ConfigError, match=r"^full_steps = 10000001: must be a whole number from 1 to 1e"):
        with_live_setting(Config(), "full_steps", 10_000_001)


def test_what_tomllib_cannot_hold_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    for text in ("seed = " + "1" * 5000, "a = " + "[" * 5000 + "]" * 5000):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"odd\.toml: not valid TOML"):
            load(file)
    assert "seed" in bad({}, overrides={"seed": "1" * 5000})


def test_a_file_may_begin_with_the_mark_that_editors_on_windows_write(tmp_path: Path) -> None:
    file = tmp_path / "marked.toml"
    file.write_bytes(b"\xef\xbb\xbf[training]\r\nseed = 5\r\n")
    assert load(file).config.training.seed == 5


def test_a_path_as_text_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\nseed = 5\n")
    assert load(str(tmp_path / "mine.toml")).config.training.seed == 5


@pytest.mark.parametrize("setting", [s for s in ALL_SETTINGS if s.choices], ids=lambda s: f"{s.section}.{s.name}")
def test_every_choice_can_be_typed_after_set(setting: Setting) -> None:
    """normalization=none was refused: "None: must be one of LayerNorm, BatchNorm, none"."""
    path = f"{setting.section}.{setting.name}"
    for choice in setting.choices:
        assert value(resolve({}, overrides={path: choice}).config, path) == choice
