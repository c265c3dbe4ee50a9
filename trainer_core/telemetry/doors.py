"""Which agent a client means and which key it shows: a run directory here, or HOST:PORT elsewhere. Opens no socket."""

from pathlib import Path

from trainer_core.telemetry.codec import PROTOCOL
from trainer_core.telemetry.endpoint import Endpoint, read_endpoint
from trainer_core.telemetry.keys import HeldKey, Key, KeyFileError, read_held, read_key
from trainer_core.telemetry.listening import place


class Door:
    """One agent and one key. ``run_dir`` is None where the run's files are on another machine."""

    def __init__(self, where: str | Path, role: str, key_file: str | Path | None = None) -> None:
        """``where``: a run directory, or HOST:PORT together with ``key_file``. Raises UserError for a bad address."""
        self._held: HeldKey | None = read_held(Path(key_file)) if key_file is not None else None
        self.role: str = self._held.role if self._held is not None else role
        self.where = str(where)
        self.run_dir: Path | None = Path(where)
        self._there: Endpoint | None = None
        if self._held is not None and not self.run_dir.is_dir():
            self._there = _remote(self.where, self._held)
            self.run_dir = None

    def endpoint(self) -> Endpoint | None:
        """Where the agent listens; None when none does here. Raises RunError for another protocol or another run."""
        if self.run_dir is None:
            return self._there
        endpoint = read_endpoint(self.run_dir)
        if endpoint is not None and self._held is not None and endpoint.server_key != self._held.server:
            raise KeyFileError(f"key {self._held.name} is not for {self.where}: its server has another key")
        return endpoint

    def key(self) -> Key:
        """The key to show. Raises RunError when the run's own cannot be read."""
        if self._held is not None:
            return self._held.pair
        assert self.run_dir is not None
        return read_key(self.run_dir, self.role)


def _remote(where: str, held: HeldKey) -> Endpoint:
    called = place(where, "address", port_needed=True)
    news, questions, commands = (called.reached(called.port + i) for i in range(3))
    return Endpoint(PROTOCOL, news, questions, commands, held.server, "", "remote", 0, 0.0)
