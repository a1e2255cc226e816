"""A signal is recognised in whatever exception it ends as."""

import io
import signal

import pytest
import torch
from typing_extensions import Buffer

from faster_isnet.common.stopping import Stopped, stopped_by


class _Interrupted(io.BytesIO):
    """A file during whose writing a signal arrives."""

    def __init__(self, ending: BaseException) -> None:
        super().__init__()
        self._ending = ending

    def write(self, content: Buffer) -> int:
        if self.tell() > 0:
            raise self._ending
        return super().write(content)


@pytest.mark.parametrize(
    ("ending", "number"),
    [(Stopped(signal.SIGTERM), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGINT)],
)
def test_a_signal_while_a_checkpoint_is_written_is_recognised(
    ending: BaseException, number: int
) -> None:
    with pytest.raises(RuntimeError) as raised:  # what torch makes of it
        torch.save({"weight": torch.zeros(10_000)}, _Interrupted(ending))
    assert stopped_by(raised.value) == number
    assert stopped_by(ending) == number


def test_an_error_of_its_own_is_no_signal() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.save({"weight": torch.zeros(10_000)}, _Interrupted(OSError("no space left")))
    assert stopped_by(raised.value) is None
    assert stopped_by(SystemExit(2)) is None
