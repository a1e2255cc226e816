"""Run the command ``faster-isnet``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from faster_isnet import __version__
from faster_isnet.common.names import hint


class _Command(NamedTuple):
    module: str
    help: str


TRACEBACK = "FASTER_ISNET_TRACEBACK"
USERS_ERRORS = (ArithmeticError, ImportError, OSError, TypeError, ValueError)
"""Errors whose message alone tells what to do."""

# Modules are named, not imported: each command loads no more than it needs.
COMMANDS = {
    "demo": _Command("demonstrating", "see it work on digits, in six minutes"),
    "fit": _Command("training", "train a classifier on your own images"),
    "validate": _Command("training", "score a checkpoint on the validation images"),
    "test": _Command("testing", "score a classifier on unseen images, and see where it looks"),
    "compare": _Command("comparing", "put tested classifiers side by side"),
    "explain": _Command("explaining", "write heatmaps of images"),
    "calibrate": _Command("calibrating", "measure C1 and C2 on a standard classifier"),
    "export": _Command("exporting", "write the bare network as safetensors, ONNX, state_dict"),
    "segment": _Command("segmenting", "train a segmenter on masks, and make masks with it"),
    "benchmark": _Command("benchmarking", "what training steps and explanations cost here"),
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
        0, or 2 after an error that the user can cure. Arguments that cannot be parsed, and
        ``--help``, raise ``SystemExit`` with 2 and 0.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = _command(given)
    _quieten()
    module = import_module(f"faster_isnet.commands.{COMMANDS[name].module}")
    run: Callable[[Sequence[str]], None] = module.run
    try:
        run(given)
    except USERS_ERRORS as error:
        if TRACEBACK in os.environ:
            raise
        print(f"faster-isnet {name}: {error}", file=sys.stderr)
        return 2
    return 0


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


def _quieten() -> None:
    """Show the messages of this package, and of the libraries below it only warnings."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("faster_isnet").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning", category=Warning)
