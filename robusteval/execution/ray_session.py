"""Joining a Ray cluster, or starting a local one for a run, and leaving the process as it was."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robusteval.execution.executors import cpu_count
from robusteval.schema.errors import UsageError
from robusteval.schema.registry import load_target
from robusteval.schema.types import Resources

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # `uv run` would be replayed for every worker, and wait for ever where it cannot reach its index.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Before Ray 2.60 a task without GPUs loses CUDA_VISIBLE_DEVICES otherwise.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_OBJECT_STORE_BYTES = 100_000_000
"""Tasks take names and give summaries, so Ray's own store stays nearly empty."""
_ANSWER_S = 10.0
"""Seconds that an address has to answer; Ray itself tries for 80."""
_SOCKET_PATH = 40
"""Longest temporary folder whose sockets keep below the 107 bytes that a path of a Unix socket may have."""
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HTTP2_SETTINGS = 4


class RaySession:
    """A connection to a cluster.

    A process that is connected to Ray already keeps that connection, which then is not closed here either; another
    address is refused.

    Args:
        import_ray: imports Ray and gives it back; called when the environment is as Ray should find it.
        address: `auto`, `ray://host:port` or `host:port`; by default what `RAY_ADDRESS` says, else a local cluster is
            started, which ends with the session.
        jobs: cells at a time on a local cluster; by default what fits the CPU.
        resources: what one cell needs, so that a local cluster has room for one.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(
        self, import_ray: Callable[[], Any], address: str | None, jobs: int | None, resources: Resources
    ) -> None:
        self._undo = contextlib.ExitStack()
        try:
            self._undo.enter_context(_ray_environment())
            self.ray = import_ray()
            if self.ray.is_initialized():
                self._stay(address)
            else:
                handler = self._undo.enter_context(_kept_signal(signal.SIGTERM))
                self._connect(address or os.environ.get("RAY_ADDRESS"), jobs, resources)
                self._undo.callback(self.ray.shutdown)
                if callable(handler):  # Ray's own one, which ends the process in order, is better than none only
                    signal.signal(signal.SIGTERM, handler)
        except BaseException:
            self._undo.close()
            raise

    def close(self) -> None:
        """Leave the cluster, end a local one, and put signal handlers and environment back."""
        self._undo.close()

    def _stay(self, address: str | None) -> None:
        """Keep the connection that is there, if it is to the cluster that was asked for."""
        if address in (None, "auto", "local"):
            return
        _check_answer(address)
        here = self.ray.get_runtime_context().gcs_address
        if not address.startswith("ray://") and address != here:
            raise UsageError(
                f"--address {address!r}: this process is connected to the Ray cluster at {here} already; call "
                "ray.shutdown() first, or leave the address out"
            )

    def _connect(self, address: str | None, jobs: int | None, resources: Resources) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address is None or address == "local":
                self._start(jobs, resources, quiet)
            else:
                found = self._found() if address == "auto" else address
                _check_answer(found)
                self.ray.init(address=found, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            where = "a local Ray cluster cannot be started" if address is None else f"--address {address!r}"
            raise UsageError(f"{where}: {reason}") from None
        except SystemExit:  # Ray's own way of giving up
            raise UsageError(f"--address {address!r}: no Ray cluster answers there") from None

    def _start(self, jobs: int | None, resources: Resources, quiet: dict[str, Any]) -> None:
        folder = _short_folder()
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        if "RAY_AUTH_MODE" not in os.environ:
            # Ray asks for a token then, so that no other user of this machine can submit; it need not be on disk.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self.ray.init(
            address="local",
            num_cpus=jobs * resources.cpus if jobs else max(cpu_count(), resources.cpus),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1",
            **quiet,
        )

    def _found(self) -> str:
        """Address of the cluster that this machine belongs to."""
        try:
            return str(load_target("ray._private.services:canonicalize_bootstrap_address_or_die")("auto"))
        except ConnectionError:
            raise UsageError(
                "--address 'auto': this machine belongs to no running Ray cluster, or to several; give host:port, or "
                "leave --address out to start a local one"
            ) from None


def _check_answer(address: str) -> None:
    """Look whether a gRPC server, which Ray's servers are, answers at an address.

    Raises:
        UsageError: none does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--address {address!r}: give auto, ray://host:port or host:port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.sendall(_HTTP2_HELLO)
            answered = connection.recv(9)[3:4] == bytes([_HTTP2_SETTINGS])
    except OSError as error:
        raise UsageError(f"--address {address!r}: no Ray cluster answers there ({error.strerror or error})") from None
    if not answered:
        raise UsageError(f"--address {address!r}: what answers there is no Ray cluster")


def _short_folder() -> Path:
    """A new folder, of this user alone, whose path is short enough for Ray's sockets."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="rv-", dir=usual if len(usual) <= _SOCKET_PATH else "/tmp"))  # noqa: S108


@contextlib.contextmanager
def _ray_environment() -> Iterator[None]:
    """Set what the user has not, for a while; Ray sets variables of its own, which go as well."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    os.environ.update(_SETTINGS | before)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_") and name not in before]:
            del os.environ[name]


@contextlib.contextmanager
def _kept_signal(number: signal.Signals) -> Iterator[Any]:
    """Put the handler of a signal back, which Ray replaces; only the main thread may.

    Yields:
        The handler that is there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    before = signal.getsignal(number)
    try:
        yield before
    finally:
        if before is not None:
            signal.signal(number, before)
