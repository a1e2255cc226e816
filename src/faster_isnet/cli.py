"""Run the command ``faster-isnet``."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from faster_isnet import __version__
from faster_isnet.common.messages import show_own_messages
from faster_isnet.common.names import hint
from faster_isnet.common.stopping import (
    Stopped,
    leaving_when_stopped,
    raising_when_stopped,
    stopped_by,
)


class _Command(NamedTuple):
    module: str
    help: str
    stopped: str = "Nothing was changed; run the command again."
    """What a user must know if the command is stopped before its end."""


TRACEBACK = "FASTER_ISNET_TRACEBACK"
USERS_ERRORS = (ArithmeticError, ImportError, OSError, TypeError, ValueError)
"""Errors whose message alone tells what to do."""

# Modules are named, not imported: each command loads no more than it needs.
COMMANDS = {
    "demo": _Command(
        "demonstrating",
        "see it work on digits, in six minutes",
        "Files that it has written are whole, but belong together only at its end; run it again.",
    ),
    "fit": _Command("training", "train a classifier on your own images"),
    "validate": _Command("training", "score a checkpoint on the validation images"),
    "test": _Command(
        "testing",
        "score a classifier on unseen images, and see where it looks",
        "The run is as it was, and files of the evaluation are whole; run the command again.",
    ),
    "compare": _Command("comparing", "put tested classifiers side by side"),
    "audit": _Command(
        "auditing",
        "measure how much anybody's classifier depends on the background",
        "What was measured is kept; run the command again, and it goes on.",
    ),
    "explain": _Command(
        "explaining",
        "write heatmaps of images",
        "Heatmaps that were written are whole; run the command again, or give the images left.",
    ),
    "calibrate": _Command("calibrating", "measure C1 and C2 on a standard classifier"),
    "export": _Command("exporting", "write the bare network as safetensors, ONNX, state_dict"),
    "push": _Command(
        "pushing",
        "put a trained classifier on the Hugging Face Hub",
        "What was uploaded is one commit, or nothing; run the command again.",
    ),
    "segment": _Command(
        "segmenting",
        "train a segmenter on masks, and make masks with it",
        "A segmenter is written at its training's end, and masks that were written are whole; run "
        "the command again (segment predict: with --overwrite).",
    ),
    "study": _Command(
        "studying",
        "train several methods with several seeds, and put them into one table",
        "What is finished is kept, and runs that were stopped go on after their last whole epoch; "
        "run the command again.",
    ),
    "benchmark": _Command("benchmarking", "what training steps and explanations cost here"),
}
_DISK_CURES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; name another",
    errno.EISDIR: "it is a folder; name a file",
    errno.EACCES: "change its permissions, or name another path",
    errno.EROFS: "name a path that can be written to",
    errno.ENOSPC: "free some space, or write elsewhere; what was there before is as it was",
    errno.EDQUOT: "free some space, or write elsewhere; what was there before is as it was",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f); what was there before is as it was",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        What follows ``faster-isnet``; by default as given on the command line.

    Returns
    -------
    int
        0; 2 after an error that the user can cure; 3 if an audit finds more than it was allowed;
        143 and 130 after SIGTERM and Ctrl-C.
        Arguments that cannot be parsed, and ``--help``, raise ``SystemExit`` with 2 and 0.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _command(given)
    show_own_messages()
    with leaving_when_stopped(f"\nfaster-isnet {name}: stopped. Nothing has been begun."):
        module = import_module(f"faster_isnet.commands.{COMMANDS[name].module}")
    show_own_messages()  # again: importing Lightning has changed its levels
    with raising_when_stopped() as received:
        try:
            status: int | None = module.run(given)
        except (Exception, KeyboardInterrupt, SystemExit) as ending:
            number = received.number or stopped_by(ending)
            if number is not None:
                return _tell_stop(name, number, ending)
            if TRACEBACK in os.environ or not isinstance(ending, USERS_ERRORS):
                raise
            print(f"faster-isnet {name}: {_message(ending)}", file=sys.stderr)
            return 2
    return status or 0


def _tell_stop(name: str, number: int, ending: BaseException) -> int:
    """Tell what was kept of a command that was stopped, and return its exit status."""
    advice = ending.advice if isinstance(ending, Stopped) else None
    by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    text = f"stopped by {by}. {advice or COMMANDS[name].stopped}"
    print(f"\nfaster-isnet {name}: {text}", file=sys.stderr)
    return 128 + number


def _message(error: Exception) -> str:
    """Return what an error says; of the operating system's the file and what to do as well."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    cure = _DISK_CURES.get(error.errno or 0)
    return f"{error.filename}: {error.strerror}" + (f"; {cure}" if cure else "")


def _command(arguments: Sequence[str]) -> str:
    """Return the command's name, or exit with the nearest one."""
    parser = _parser()
    name: str = parser.parse_args(arguments[:1]).command
    if name not in COMMANDS:
        parser.error(f"unknown command {name!r}{hint(name, COMMANDS)}; see faster-isnet --help")
    return name


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="faster-isnet",
        description="Train classifiers that do not read the background.",
        epilog=f"commands:\n{listed}\n\nfaster-isnet COMMAND --help lists its options.\n"
        f"With {TRACEBACK}=1 in the environment an error shows where it comes from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help="see below")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser
