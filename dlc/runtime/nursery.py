"""A process that has imported what children need and forks them: each is there in milliseconds, and nothing has run in it yet.

The nursery itself runs nothing else, so it has no thread pool and no device that a fork would break.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from dlc.lazy import load
from dlc.runtime.child import Child, serve
from dsl.errors import LaunchError


class Nursery(Child):
    """Forks children that answer ``handler(request)``.

    Args:
        handler: ``"package.module:function"``, imported once.
        env: environment variables set in the children only.
    """

    loop = ("dlc.runtime.nursery", "nurse")

    def child(self, env: Mapping[str, str] | None = None) -> Child:
        """A child to be forked on its first call, with the environment that this process has then and some variables besides."""
        return _Forked(self, {**self.env, **(env or {})})

    def fork(self, theirs: Connection, env: Mapping[str, str]) -> int:
        """Fork a process that answers on a connection; returns its number.

        Raises:
            LaunchError: the nursery did not start.
        """
        with self._lock:
            pipe = self.send({**os.environ, **env})
            try:
                send_handle(pipe, theirs.fileno(), self.start())
            except OSError as error:
                raise LaunchError("a helper process died", self._epitaph()) from error
            return int(self.receive(60.0))

    def status(self, pid: int) -> int | None:
        """The exit status of a forked process; None while it runs."""
        with self._lock:
            self.send(pid)
            code: int | None = self.receive(60.0)
            return code


def shared(handler: str) -> Nursery:
    """The nursery of this process for a handler: it takes seconds to start, and is kept until the process ends."""
    return _kept(handler, os.getpid())


@functools.cache
def _kept(handler: str, pid: int) -> Nursery:
    nursery = Nursery(handler)

    def end() -> None:
        if os.getpid() == pid:  # not in a fork of this process, which has it too
            nursery.close()

    atexit.register(end)
    return nursery


class _Forked(Child):
    """A child of the nursery."""

    def __init__(self, nursery: Nursery, env: dict[str, str]) -> None:
        super().__init__(nursery.handler, env)
        self.nursery = nursery

    def _spawn(self, pipe: Connection) -> _ForkedProcess:
        return _ForkedProcess(self.nursery, self.nursery.fork(pipe, self.env))

    def _last_words(self) -> str:
        return ""


class _ForkedProcess:
    """A process that is no child of this one: the nursery knows how it ended."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid = nursery, pid
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.nursery.status(self.pid)
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (60.0 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                return 0
            time.sleep(0.002)
        return code


def nurse(handler: Callable[[Any], Any], descriptor: int) -> None:
    """The nursery's loop: forks, and tells how those it forked have ended, until the parent closes the pipe."""
    pipe = Connection(descriptor)
    ended: dict[int, int] = {}
    load("dsl", "codegen", "dlc")
    gc.freeze()  # no collection in a child looks at what was imported
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(("ok", _reap(request, ended) if isinstance(request, int) else _fork(handler, pipe, request)))


def _fork(handler: Callable[[Any], Any], pipe: Connection, env: Mapping[str, str]) -> int:
    theirs = recv_handle(pipe)
    pid = os.fork()
    if pid == 0:
        pipe.close()
        os.setsid()
        os.environ.clear()
        os.environ.update(env)
        serve(handler, theirs)
        os._exit(0)
    os.close(theirs)
    return pid


def _reap(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # an earlier nursery's
            return -signal.SIGKILL
        if not done:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]
