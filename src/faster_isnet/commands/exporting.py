"""``faster-isnet export``: the bare network, for use without this library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.training.export import FILES, export


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    options = parser().parse_args(list(words[1:]))
    bundle = ModelBundle.from_checkpoint(options.checkpoint)
    written = export(
        bundle.network,
        options.out,
        bundle.image_shape,
        options.formats,
        bundle.class_names,
        architecture=bundle.architecture,
    )
    for name, path in written.items():
        print(f"{name:12} {path.resolve()}")


def parser() -> ArgumentParser:
    """Return the command's parser."""
    parser = ArgumentParser(
        prog="faster-isnet export",
        description="Write the network of a checkpoint, without any trace of how it was trained.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="of faster-isnet fit")
    add("--out", type=Path, default=Path("exported"), help="folder (default: exported)")
    add(
        "--formats",
        nargs="+",
        default=list(FILES),
        help=f"{', '.join(FILES)} (default: all; onnx needs pip install 'faster-isnet[onnx]')",
    )
    return parser
