"""The machine under a run, read every few seconds by a thread of its own; never by the step's. Judges nothing.

psutil reads process, memory and disk; nvidia-ml-py (extra ``gpu``) the GPUs. What cannot be read is None.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from trainer_core.spec.records import Annotated, Record, RunEnvironment, SystemMeasured
from trainer_core.spec.surroundings import GpuMeasured

GIB = float(1 << 30)
_CLOSE_S = 6.0
_DRIVER = Path("/dev/nvidiactl")
NO_GPU_PACKAGE = (
    "GPU utilisation, memory, temperature and power are not recorded: nvidia-ml-py is not installed; "
    "pip install 'hybrid-predictive-trainer[gpu]'"
)


class Machine:
    """Reads the machine for the process it is made in. ``clock`` gives seconds, for the CPU share."""

    def __init__(self, run_dir: Path, gpus: "Gpus | None" = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_dir, self._clock = Path(run_dir), clock
        self.gpus = Gpus() if gpus is None else gpus
        self._process = psutil.Process()
        self._before: tuple[float, float] | None = None
        psutil.cpu_percent()  # the first answer is about no time at all

    def read(self, step: int) -> SystemMeasured:
        """One record. Raises nothing."""
        memory = _tried(psutil.virtual_memory)
        disk = _tried(lambda: psutil.disk_usage(str(self._run_dir)))
        resident = _tried(self._process.memory_info)
        share = _tried(psutil.cpu_percent)
        return SystemMeasured(
            step=step,
            cpu=self._cores(),
            cpu_machine=None if share is None else share / 100.0,
            rss=None if resident is None else int(resident.rss),
            memory_used=None if memory is None else int(memory.total - memory.available),
            memory_total=None if memory is None else int(memory.total),
            disk_free=None if disk is None else int(disk.free),
            disk_total=None if disk is None else int(disk.total),
            gpus=self.gpus.read(),
        )

    def _cores(self) -> float | None:
        """CPU seconds of this process a second since the last reading."""
        spent = _tried(self._process.cpu_times)
        if spent is None:
            return None
        now, used = self._clock(), float(spent.user + spent.system)
        before, self._before = self._before, (now, used)
        return None if before is None or now <= before[0] else (used - before[1]) / (now - before[0])

    def close(self) -> None:
        self.gpus.close()


class Gpus:
    """Every NVIDIA GPU of the machine; none where there is no driver or no package (``nvml``) to ask it with."""

    def __init__(self, nvml: Any = None, driver: Path = _DRIVER) -> None:
        nvml = nvml if nvml is not None else _package()
        self.missing = nvml is None and driver.exists()
        """There is a driver, and the package that asks it is not installed."""
        self._nvml: Any = None
        self._handles: list[tuple[int, str, Any]] = []
        if nvml is None:
            return
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlInit()
            self._nvml = nvml
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                name = nvml.nvmlDeviceGetName(handle)
                self._handles.append((index, name if isinstance(name, str) else name.decode(), handle))

    def read(self) -> tuple[GpuMeasured, ...]:
        """One entry a GPU; what a driver does not tell is None."""
        return tuple(self._read(index, name, handle) for index, name, handle in self._handles)

    def _read(self, index: int, name: str, handle: Any) -> GpuMeasured:
        n = self._nvml
        rates = self._asked(n.nvmlDeviceGetUtilizationRates, handle)
        memory = self._asked(n.nvmlDeviceGetMemoryInfo, handle)
        degrees = self._asked(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU)
        milliwatts = self._asked(n.nvmlDeviceGetPowerUsage, handle)
        return GpuMeasured(
            index,
            name,
            None if rates is None else rates.gpu / 100.0,
            None if memory is None else int(memory.used),
            None if memory is None else int(memory.total),
            None if degrees is None else float(degrees),
            None if milliwatts is None else milliwatts / 1000.0,
        )

    def _asked(self, question: Callable[..., Any], *words: Any) -> Any:
        try:
            return question(*words)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._nvml, self._handles = None, []


def _package() -> Any:
    """nvidia-ml-py, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def signals(measured: SystemMeasured) -> dict[str, float | None]:
    """What the alert rules of the machine look at: GiB, a share, degrees Celsius."""
    degrees = [gpu.temperature for gpu in measured.gpus if gpu.temperature is not None]
    used, total = measured.memory_used, measured.memory_total
    return {
        "disk_free": None if measured.disk_free is None else measured.disk_free / GIB,
        "memory_share": used / total if used is not None and total else None,
        "gpu_temperature": max(degrees, default=None),
    }


class SystemWatch:
    """A thread that says where the process came from, and every ``every_s`` seconds how the machine is (0: never).

    ``say`` is called by that thread, ``where`` asked for the present step, ``judge`` told every reading.
    """

    def __init__(
        self,
        run_dir: Path,
        say: Callable[[Record], None],
        *,
        where: Callable[[], int],
        judge: Callable[[SystemMeasured], None],
        environment: Callable[[], RunEnvironment],
        every_s: float,
        machine: Callable[[Path], Machine] = Machine,
    ) -> None:
        self._run_dir, self._say, self._where, self._judge = Path(run_dir), say, where, judge
        self._environment, self._every_s, self._machine = environment, every_s, machine
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # where it came from is worth no run
            self._say(self._environment())
        if self._every_s <= 0:
            return
        with contextlib.suppress(Exception):  # neither is how the machine is
            self._watch(self._machine(self._run_dir))

    def _watch(self, machine: Machine) -> None:
        try:
            if machine.gpus.missing:
                self._say(Annotated(self._where(), NO_GPU_PACKAGE, "telemetry"))
            while True:
                measured = machine.read(self._where())
                self._say(measured)
                self._judge(measured)
                if self._ending.wait(self._every_s):
                    return
        finally:
            machine.close()

    def close(self) -> None:
        """Let the reading that is under way end; nothing is said afterwards."""
        self._ending.set()
        self._thread.join(_CLOSE_S)


def _tried(read: Callable[[], Any]) -> Any:
    """A reading, or None where the system does not give it."""
    try:
        return read()
    except (OSError, psutil.Error, NotImplementedError, RuntimeError):
        return None
