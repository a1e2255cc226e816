"""Run ``faster-isnet explain``: write heatmaps of images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from faster_isnet.commands.arguments import CommandParser, command_parser, image_files, parameters
from faster_isnet.commands.network_loading import add_network_options, load_network
from faster_isnet.common.names import hint
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.heatmap_files import ALL_CLASSES, TARGETS, write_explanations

PREDICTED, ALL = "predicted", "all"
NONE = "none"
_OWN = ("explainer", "images", "out", "target", "prepare", "class_names", "task")


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    rows = _explain(options)
    print(f"{len(rows)} heatmaps: {(options.out / 'explanations.csv').resolve()}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "explain", "Write heatmaps of images, as pictures and as arrays, and a table of them."
    )
    add = parser.add_argument
    add(
        "model",
        type=str,
        help="a checkpoint or a folder of faster-isnet fit, hub:ORG/NAME, or a network's name: "
        "resnet50, timm:…",
    )
    add("images", nargs="+", type=Path, help="image files, or folders of them")
    add("--out", type=Path, default=Path("explanations"), help="folder of the heatmaps")
    add(
        "--target",
        type=str,
        default=PREDICTED,
        help=f"what to explain: {PREDICTED}, {ALL} for every class, a class's name or index, or "
        f"of the library's quantities {', '.join(TARGETS)}",
    )
    add_network_options(parser)
    parser.add_parameters(write_explanations, skip=_OWN, group=False)
    # The relevance of hidden layers is not written, so that there is nothing to choose.
    types = {"composite": str, "input_low": float | list[float], "input_high": float | list[float]}
    parser.add_parameters(Explainer, skip=("model", "layers"), types=types)
    parser.set_defaults({"input_rule": "zb"})
    return parser


def _explain(options: Namespace) -> list[dict[str, str | int | float]]:
    bundle = load_network(options.model, options)
    bundle.check_takes_images_alone("explain")
    bundle.check_has_gradients("explain")
    print(f"Images become: {bundle.preprocessing}")
    chosen = parameters(Explainer, options) | {"model": bundle.network}
    if options.input_rule == NONE:
        chosen["input_rule"] = None
    print(_support(chosen, bundle.image_shape), flush=True)
    given = parameters(write_explanations, options) | {
        "explainer": Explainer(**chosen),
        "images": image_files(options.images),
        "target": _target(options.target, bundle.class_names),
        "prepare": bundle.prepare,
        "class_names": bundle.class_names,
        "task": bundle.task,
    }
    return write_explanations(**given)


def _support(chosen: Mapping[str, Any], image_shape: tuple[int, int, int]) -> str:
    """Say how exactly the network is explained, by a random image."""
    options = dict(chosen)
    support = Explainer.supports(options.pop("model"), image_shape, **options)
    return f"how exactly {options['composite']!r} explains this network, by one random image:\n" + (
        textwrap.indent(str(support), "  ")
    )


def _target(target: str, class_names: Sequence[str]) -> int | str | None:
    if target == PREDICTED:
        return None
    if target == ALL:
        return ALL_CLASSES
    if target in class_names:
        return list(class_names).index(target)
    if target.isdecimal() and int(target) < len(class_names):
        return int(target)
    if target in TARGETS:
        return target
    raise ValueError(
        f"target {target!r} is neither {PREDICTED!r}, {ALL!r}, a class nor its index"
        f"{hint(target, [PREDICTED, ALL, *class_names, *TARGETS])}; the classes are: "
        f"{', '.join(map(repr, list(class_names)[:20]))}; the quantities: {', '.join(TARGETS)}"
    )
