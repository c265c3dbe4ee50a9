"""The machine under a run and where the run came from: what is read, what is said, and what is never said."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.telemetry.waiting import until
from trainer_core import Monitor
from trainer_core.engine.alarms import Alarms
from trainer_core.spec.config import Config
from trainer_core.spec.records import AlertRaised, AlertResolved, Annotated, RunEnvironment, RunState, SystemMeasured
from trainer_core.spec.severity import Severity
from trainer_core.spec.surroundings import GpuMeasured
from trainer_core.surroundings import watch_system
from trainer_core.telemetry.environment import environment, git, shown
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.system import GIB, Gpus, Machine, signals


class NVMLError(Exception):
    """As the package raises it."""


def driver(**without: bool) -> Any:
    """A driver with one GPU; ``power=False``: it does not tell its power."""

    def told(name: str, answer: Any) -> Callable[..., Any]:
        def ask(*_: Any) -> Any:
            if without.get(name) is False:
                raise NVMLError("not supported")
            return answer

        return ask

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=told("init", None),
        nvmlShutdown=told("shutdown", None),
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"NVIDIA X",
        nvmlDeviceGetUtilizationRates=told("rates", SimpleNamespace(gpu=87, memory=3)),
        nvmlDeviceGetMemoryInfo=told("memory", SimpleNamespace(used=3, total=8)),
        nvmlDeviceGetTemperature=told("temperature", 61),
        nvmlDeviceGetPowerUsage=told("power", 250_500),
    )


def test_the_real_machine_is_read(tmp_path: Path) -> None:
    ticks = iter([10.0, 10.5])
    machine = Machine(tmp_path, Gpus(driver()), clock=lambda: next(ticks))
    first, second = machine.read(7), machine.read(8)
    machine.close()
    assert (first.step, first.cpu) == (7, None) and second.cpu is not None and second.cpu >= 0
    assert first.rss is not None and first.memory_used is not None and first.memory_total is not None
    assert 0 < first.rss < first.memory_total and 0 < first.memory_used <= first.memory_total
    assert first.disk_free is not None and first.disk_total is not None and 0 <= first.disk_free <= first.disk_total
    assert second.cpu_machine is not None and 0 <= second.cpu_machine <= 1


def test_a_gpu_is_read_in_shares_bytes_degrees_and_watts() -> None:
    assert Gpus(driver()).read() == (GpuMeasured(0, "NVIDIA X", 0.87, 3, 8, 61.0, 250.5),)


def test_what_a_driver_does_not_tell_is_none() -> None:
    (gpu,) = Gpus(driver(power=False, temperature=False)).read()
    assert (gpu.power, gpu.temperature, gpu.utilisation) == (None, None, 0.87)
    assert Gpus(driver(init=False)).read() == ()


def test_a_reading_becomes_the_signals_of_its_alerts() -> None:
    gpus = (GpuMeasured(0, "a", temperature=60.0), GpuMeasured(1, "b"), GpuMeasured(2, "c", temperature=91.0))
    assert signals(SystemMeasured(1, memory_used=9, memory_total=10, disk_free=int(GIB) * 3, gpus=gpus)) == {
        "disk_free": 3.0,
        "memory_share": 0.9,
        "gpu_temperature": 91.0,
    }
    assert set(signals(SystemMeasured(1)).values()) == {None}


@pytest.mark.parametrize(
    ("reading", "rule", "severity"),
    [
        (SystemMeasured(1, disk_free=int(1.9 * GIB)), "disk nearly full", Severity.WARNING),
        (SystemMeasured(1, disk_free=0), "disk nearly full", Severity.CRITICAL),
        (SystemMeasured(1, memory_used=91, memory_total=100), "host memory nearly full", Severity.WARNING),
        (SystemMeasured(1, memory_used=98, memory_total=100), "host memory nearly full", Severity.CRITICAL),
        (SystemMeasured(1, gpus=(GpuMeasured(0, "a", temperature=86.0),)), "GPU temperature", Severity.WARNING),
        (SystemMeasured(1, gpus=(GpuMeasured(0, "a", temperature=96.0),)), "GPU temperature", Severity.CRITICAL),
        (SystemMeasured(1, disk_free=int(3 * GIB), memory_used=50, memory_total=100), None, None),
        (SystemMeasured(1), None, None),
    ],
)
def test_the_machines_rules_at_their_limits(
    reading: SystemMeasured, rule: str | None, severity: Severity | None
) -> None:
    from trainer_core.spec.alerts import SYSTEM_RULES

    said: list[Any] = []
    alarms = Alarms(said.append, lambda: 0, rules=SYSTEM_RULES, prefix="system")
    for _ in range(3):
        alarms.judge(signals(reading), 1, Config())
    assert [(a.rule, a.severity) for a in said] == ([] if rule is None else [(rule, severity)])


class Scripted(Machine):
    """A machine whose free disk follows a script; the last value stays."""

    def __init__(self, run_dir: Path, free: list[int], missing: bool = False) -> None:
        super().__init__(run_dir, Gpus(driver()))
        self._free = free
        self.gpus.missing = missing

    def read(self, step: int) -> SystemMeasured:
        free = self._free.pop(0) if len(self._free) > 1 else self._free[0]
        return SystemMeasured(step, disk_free=free)


def records(run_dir: Path, kind: type) -> list[Any]:
    reader = JournalReader(run_dir)
    try:
        return [row.record for row in reader.rows(limit=100_000) if isinstance(row.record, kind)]
    finally:
        reader.close()


def test_alerts_of_the_machine_are_raised_and_resolved_without_a_single_step(run_dir: Path) -> None:
    health = msgspec.structs.replace(Config().health, system_every=0.01)
    config = msgspec.structs.replace(Config(), health=health)
    reporter, all_alarms = Reporter(run_dir), list[Alarms]()
    full, empty = int(GIB), int(100 * GIB)
    watching = watch_system(
        run_dir, reporter.report, all_alarms, step=lambda: 5, attempt=lambda: 2, config=lambda: config, device="cpu",
        machine=lambda folder: Scripted(folder, [full, full, empty, empty, empty], missing=True),
    )  # fmt: skip
    until(lambda: records(run_dir, AlertResolved))
    watching.close()
    reporter.close()
    (raised,), (resolved,) = records(run_dir, AlertRaised), records(run_dir, AlertResolved)
    assert (raised.rule, raised.step, raised.value, raised.limit) == ("disk nearly full", 5, 1.0, 2.0)
    assert raised.alert_id == resolved.alert_id == "system-2-1"
    (note,) = records(run_dir, Annotated)
    assert "nvidia-ml-py is not installed" in note.text
    assert all_alarms[0].silence("disk nearly full", 100) and not all_alarms[0].is_open("system-2-1")


def test_a_machine_that_cannot_be_read_harms_nothing(run_dir: Path) -> None:
    class Broken(Machine):
        def read(self, step: int) -> SystemMeasured:
            raise ValueError("no such sensor")

    reporter = Reporter(run_dir)
    watching = watch_system(
        run_dir, reporter.report, [], step=lambda: 0, attempt=lambda: 0, config=Config, device="cpu", machine=Broken
    )
    watching.close()
    assert reporter.close()
    assert len(records(run_dir, RunEnvironment)) == 1 and records(run_dir, SystemMeasured) == []


def test_a_run_says_where_it_came_from_and_how_its_machine_is_before_its_last_word(run_dir: Path) -> None:
    run = run_dir / "own"
    with Monitor(run, serve=False) as monitor:
        monitor.step(loss=1.0)
    (said,), system = records(run, RunEnvironment), records(run, SystemMeasured)
    assert system and said.python.startswith("3.") and "msgspec" in said.packages and said.command_line
    reader = JournalReader(run)
    assert isinstance(reader.last_rows(1)[0].record, RunState)
    reader.close()
    with Monitor(run_dir / "off", config={"health": {"system_every": 0}}, serve=False) as monitor:
        monitor.step(loss=1.0)
    assert records(run_dir / "off", SystemMeasured) == [] and len(records(run_dir / "off", RunEnvironment)) == 1


def test_no_environment_variable_is_ever_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "hunter2-hunter2")
    assert "hunter2" not in str(environment(0, "cpu", tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.py", "--lr", "0.1"], ("train.py", "--lr", "0.1")),
        (["train.py", "--api-key", "abc", "--lr", "1"], ("train.py", "--api-key", "***", "--lr", "1")),
        (["train.py", "--hub-token=abc"], ("train.py", "--hub-token=***")),
        (["train.py", "password=abc"], ("train.py", "password=***")),
        (["train.py", "--data", "https://me:abc@host/x"], ("train.py", "--data", "https://***@host/x")),
        (["train.py", "--token", "--lr", "1"], ("train.py", "--token", "--lr", "1")),
        (["train.py", "tokenizer.json"], ("train.py", "tokenizer.json")),
        (["train.py", "--max-tokens", "9", "--tokenizer=a"], ("train.py", "--max-tokens", "9", "--tokenizer=a")),
    ],
)
def test_a_command_line_is_said_without_its_secrets(words: list[str], said: tuple[str, ...]) -> None:
    assert shown(words) == said


def test_the_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert git(tmp_path) == (None, None)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def run(*words: str) -> str:
        keep = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        said = subprocess.run(["git", *who, *words], cwd=tmp_path, env=keep, capture_output=True, text=True, check=True)
        return said.stdout.strip()

    run("init", "-q")
    (tmp_path / "a").write_text("1")
    run("add", "a")
    run("commit", "-qm", "one")
    commit = run("rev-parse", "HEAD")
    assert git(tmp_path) == (commit, False)
    (tmp_path / "untracked").write_text("1")
    assert git(tmp_path) == (commit, False)
    (tmp_path / "a").write_text("2")
    assert git(tmp_path) == (commit, True)
