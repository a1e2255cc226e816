"""End a program that is told to stop, by SIGTERM or Ctrl-C, with what its user must know."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Return the signal that an exception comes from, ``None`` if from none."""
    if isinstance(ending, Stopped):
        return ending.number
    # Lightning ends the program with the exit status 1 after Ctrl-C.
    causes = (ending, ending.__context__) if isinstance(ending, SystemExit) else (ending,)
    return signal.SIGINT if any(isinstance(each, KeyboardInterrupt) for each in causes) else None


@contextmanager
def raising_when_stopped() -> Iterator[None]:
    """Have SIGTERM raise :class:`Stopped`, so that what was begun is tidied up.

    Only in the main thread, where Python lets handlers be set, and where no other is set. The
    handlers of SIGTERM and SIGINT are afterwards those of before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _handler_of(os.getpid()))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handler_of(process: int) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)  # a process that was forked ends as it would
        os.kill(os.getpid(), number)

    return stop
