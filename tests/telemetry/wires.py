"""Raw sockets for tests that speak to an agent badly, or with the wrong key."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from trainer_core.telemetry.auth import Key, read_key, secure_client


def endpoint(run_dir: Path) -> dict[str, Any]:
    """Where the agent says it listens."""
    content: dict[str, Any] = json.loads((run_dir / "endpoint.json").read_text())
    return content


def stranger() -> Key:
    """A good key pair that no run knows."""
    public, secret = zmq.curve_keypair()
    return Key(public.decode(), secret.decode())


@contextmanager
def dealer(run_dir: Path, socket_name: str, key: Key | str | None) -> Iterator["zmq.Socket[Any]"]:
    """A DEALER connected to one of the agent's sockets: with a key, a role's key, or none at all."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    if key is not None:
        own = read_key(run_dir, key) if isinstance(key, str) else key
        secure_client(socket, endpoint(run_dir)["server_key"], own)
    socket.connect(endpoint(run_dir)[socket_name])
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def answered(socket: "zmq.Socket[Any]", frames: list[bytes], within_ms: int = 1500) -> bytes | None:
    """Send and return the reply's last frame, or None when there is none."""
    socket.send_multipart(frames)
    return socket.recv_multipart()[-1] if socket.poll(within_ms) else None
