"""The machine under a run, watched: its readings and alerts into the journal. Reads nothing itself, knows no step.

Everything here happens in that thread; the step's thread only reads which alerts are open.
"""

from collections.abc import Callable
from pathlib import Path

from trainer_core.engine.alarms import Alarms
from trainer_core.spec.alerts import SYSTEM_RULES
from trainer_core.spec.config import Config
from trainer_core.spec.records import Record, SystemMeasured
from trainer_core.telemetry.environment import environment
from trainer_core.telemetry.system import Machine, SystemWatch, signals


def watch_system(
    run_dir: Path,
    say: Callable[[Record, int], None],
    all_alarms: list[Alarms],
    *,
    step: Callable[[], int],
    attempt: Callable[[], int],
    config: Callable[[], Config],
    device: str,
    machine: Callable[[Path], Machine] = Machine,
) -> SystemWatch:
    """Begin to watch; the machine's alarms join ``all_alarms``, so that they can be acknowledged and silenced.

    ``say(record, attempt)`` is called by the watching thread.
    """
    alarms = Alarms(lambda record: say(record, attempt()), attempt, rules=SYSTEM_RULES, prefix="system")
    all_alarms.append(alarms)

    def judge(measured: SystemMeasured) -> None:
        alarms.judge(signals(measured), measured.step, config())

    return SystemWatch(
        run_dir,
        lambda record: say(record, attempt()),
        where=step,
        judge=judge,
        environment=lambda: environment(step(), device),
        every_s=config().health.system_every,
        machine=machine,
    )
