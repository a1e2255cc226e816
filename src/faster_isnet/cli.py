"""The command ``faster-isnet``."""

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


class _Command(NamedTuple):
    module: str
    help: str


TRACEBACK = "FASTER_ISNET_TRACEBACK"
USERS_ERRORS = (ArithmeticError, ImportError, OSError, TypeError, ValueError)
"""What says by its message alone what to do."""

# Modules are named, not imported: each command loads no more than it needs.
COMMANDS = {
    "demo": _Command("demonstrating", "see it work on digits, in six minutes"),
    "fit": _Command("training", "train a classifier on your own images"),
    "validate": _Command("training", "score a checkpoint on the validation images"),
    "test": _Command("testing", "score a classifier on unseen images, and see where it looks"),
    "compare": _Command("comparing", "put tested classifiers side by side"),
    "explain": _Command("explaining", "write heatmaps of images"),
    "calibrate": _Command("calibrating", "measure C1 and C2 on a plain classifier"),
    "export": _Command("exporting", "write the bare network as safetensors, ONNX, state_dict"),
    "segment": _Command("segmenting", "train a segmenter on masks, and make masks with it"),
    "benchmark": _Command("benchmarking", "what training steps and explanations cost here"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        The words after ``faster-isnet``; those of the command line by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words[:1])
    _quieten()
    module = import_module(f"faster_isnet.commands.{COMMANDS[options.command].module}")
    run: Callable[[Sequence[str]], None] = module.run
    try:
        run(words)
    except USERS_ERRORS as error:
        if TRACEBACK in os.environ:
            raise
        print(f"faster-isnet {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="faster-isnet",
        description="Train classifiers that do not read the background.",
        epilog=f"commands:\n{listed}\n\nfaster-isnet COMMAND --help says more.\n"
        f"With {TRACEBACK}=1 in the environment an error shows where it comes from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _quieten() -> None:
    """Let what this command says be seen among what the libraries below it say."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("faster_isnet").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning", category=Warning)
