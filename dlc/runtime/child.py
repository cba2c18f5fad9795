"""A Python child process that answers requests, so that a crash or a hang there never ends the caller.

Not :mod:`multiprocessing`: its spawn imports the user's main module again, which a library must not do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any, ClassVar, Protocol

from dsl.errors import DlcError, InternalError, LaunchError

_BOOT = """
import importlib, sys
from {module} import {serve}
module, name = sys.argv[1].split(":")
{serve}(getattr(importlib.import_module(module), name), int(sys.argv[2]))
"""


class Process(Protocol):
    """What a child needs to know of its process."""

    pid: int

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""


class Child:
    """One process answering ``handler(request)``, started on the first call and again after it dies.

    Args:
        handler: ``"package.module:function"``, imported in the child.
        env: environment variables set in the child only.
    """

    loop: ClassVar[tuple[str, str]] = ("dlc.runtime.child", "serve")

    def __init__(self, handler: str, env: dict[str, str] | None = None) -> None:
        self.handler, self.env = handler, env or {}
        self._process: Process | None = None
        self._log: IO[bytes] | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def call(self, request: Any, timeout: float | None = None) -> Any:
        """The handler's reply. Raises what it raised, or LaunchError when the child dies or runs out of time."""
        with self._lock:
            try:
                self.send(request)
                return self.receive(timeout)
            except DlcError:
                raise
            except BaseException:  # includes the user's Ctrl-C: a reply to this request must not answer the next
                self._stop()
                raise

    def start(self) -> int:
        """Start the process, if it is not running, without waiting until it is ready; returns its number."""
        self._start()
        assert self._process is not None
        return self._process.pid

    def send(self, request: Any) -> Connection:
        """Hand over a request without waiting; the connection is readable when the reply, or the child's end, is there.

        Raises:
            LaunchError: the child died while it was read.
        """
        pipe = self._start()
        try:
            pipe.send(request)
        except OSError as error:
            raise LaunchError("a helper process died", self._epitaph()) from error
        return pipe

    def receive(self, timeout: float | None = None) -> Any:
        """The reply to the last request sent; see :meth:`call`. A child that is out of time is ended."""
        assert self._pipe is not None
        try:
            if not self._pipe.poll(timeout):
                self._stop()
                raise LaunchError(f"no answer from a helper process within {timeout:g} s", f"it was running {self.handler}")
            status, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise LaunchError("a helper process died", self._epitaph()) from error
        if status == "ok":
            return value
        raise _rebuild(value)

    def close(self) -> None:
        """End the process, if any."""
        with self._lock:
            self._stop()

    def _start(self) -> Connection:
        if self._process is not None and self._process.poll() is None and self._pipe is not None:
            return self._pipe
        self._stop()
        ours, theirs = Pipe()
        self._process = self._spawn(theirs)
        theirs.close()
        self._pipe = ours
        return ours

    def _spawn(self, pipe: Connection) -> Process:
        """A process that answers on ``pipe``."""
        path = os.pathsep.join(p for p in sys.path if p) + os.pathsep + os.getcwd()
        self._log = tempfile.TemporaryFile()
        return subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(module=self.loop[0], serve=self.loop[1]), self.handler, str(pipe.fileno())],
            pass_fds=(pipe.fileno(),),
            env={**os.environ, "PYTHONPATH": path, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # so that a compiler the child started ends with it
        )

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
        if self._log is not None:
            self._log.close()
        self._log = None
        self._process = self._pipe = None

    def _epitaph(self) -> str:
        """Exit status and last output of the dead child, which is then forgotten."""
        assert self._process is not None
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = None
        tail = self._last_words()
        self._stop()
        return f"exit status {code}\n{tail}".strip()

    def _last_words(self) -> str:
        """The end of what the process printed."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")


def serve(handler: Callable[[Any], Any], descriptor: int) -> None:
    """The child's loop: one reply for each request until the parent closes the pipe."""
    pipe = Connection(descriptor)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            reply = ("ok", handler(request))
        except Exception as error:
            reply = ("error", _describe(error))
        pipe.send(reply)


def _describe(error: Exception) -> tuple[type[DlcError], str, str, str]:
    if isinstance(error, DlcError):
        return type(error), error.title, error.reason, error.remedy
    return InternalError, f"{type(error).__name__} in a helper process", str(error), ""


def _rebuild(value: tuple[type[DlcError], str, str, str]) -> DlcError:
    kind, title, reason, remedy = value
    return kind(title, reason, remedy)
