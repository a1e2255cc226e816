"""End a program that is told to stop, by SIGTERM or Ctrl-C, with what its user must know."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(SystemExit):
    """Ends the program after a signal, with the exit status that shells expect.

    Parameters
    ----------
    number
        Of the signal; the exit status is 128 more.
    advice
        What was kept and how to go on; ``None`` if that is not known where it was raised.

    Examples
    --------
    >>> Stopped(signal.SIGTERM).code
    143
    """

    def __init__(self, number: int, advice: str | None = None) -> None:
        super().__init__(128 + number)
        self.number = number
        self.advice = advice


def stopped_by(ending: BaseException) -> int | None:
    """Return the signal that an exception comes from, ``None`` if from none.

    What is interrupted may make another exception of it: ``torch.save`` a ``RuntimeError``,
    Lightning an exit with status 1.
    """
    cause: BaseException | None = ending
    while cause is not None:
        if isinstance(cause, Stopped):
            return cause.number
        if isinstance(cause, KeyboardInterrupt):
            return signal.SIGINT
        cause = cause.__context__
    return None


@dataclass
class Received:
    """The signal that told the program to stop, ``None`` while there was none."""

    number: int | None = None


@contextmanager
def raising_when_stopped() -> Iterator[Received]:
    """Have SIGTERM raise :class:`Stopped` and Ctrl-C ``KeyboardInterrupt``, and record both.

    What is interrupted may make another exception of these, so the record is what counts. Only in
    the main thread, where Python lets handlers be set, and only instead of the usual handlers,
    which are put back afterwards.
    """
    received, process = Received(), os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a process that was forked ends as it would
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.number = number
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    with _handling(stop):
        yield received


@contextmanager
def leaving_when_stopped(message: str) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C end the program at once, with a message; for imports.

    Libraries that are interrupted while they are imported end in errors of any kind, or crash.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{message}\n".encode())
        os._exit(128 + number)

    with _handling(leave):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT where Python's usual handlers would."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    if threading.current_thread() is not threading.main_thread():
        usual = {}
    before = {number: signal.getsignal(number) for number in usual}
    for number, known in usual.items():
        if before[number] is known:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
