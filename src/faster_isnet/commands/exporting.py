"""Run ``faster-isnet export``: write the bare network, for use without this library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faster_isnet.commands.arguments import CommandParser, command_parser
from faster_isnet.commands.network_loading import add_network_options, load_network
from faster_isnet.training.export import export


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    bundle = load_network(options.checkpoint, options)
    bundle.check_takes_images_alone("an exported network")
    bundle.check_has_gradients("export")
    written = export(
        bundle.network,
        options.out,
        bundle.image_shape,
        options.formats,
        bundle.class_names,
        architecture=bundle.architecture,
        task=bundle.task,
        resizing=bundle.resizing,
    )
    for name, path in written.items():
        print(f"{name:12} {path.resolve()}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "export", "Write the network of a checkpoint, without any trace of how it was trained."
    )
    parser.add_argument(
        "checkpoint",
        type=str,
        help="a checkpoint or a folder of faster-isnet fit, hub:ORG/NAME, or a network's name: "
        "resnet50, timm:…",
    )
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder of the files")
    add_network_options(parser)
    parser.add_parameters(export, only=["formats"], group=False)  # the checkpoint has the others
    return parser
