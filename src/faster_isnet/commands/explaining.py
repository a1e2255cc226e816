"""``faster-isnet explain``: heatmaps of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from faster_isnet.commands.arguments import image_files
from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.heatmap_files import FORMATS, write_explanations
from faster_isnet.relevance import COMPOSITES, INPUT_RULES

PREDICTED, ALL = "predicted", "all"


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    options = parser().parse_args(list(words[1:]))
    rows = _explain(options)
    print(f"{len(rows)} heatmaps: {(options.out / 'explanations.csv').resolve()}")


def parser() -> ArgumentParser:
    """Return the command's parser."""
    parser = ArgumentParser(
        prog="faster-isnet explain",
        description="Write heatmaps of images, as pictures and as arrays, and a table of them.",
    )
    add = parser.add_argument
    add("model", help="a checkpoint of faster-isnet fit, or a network's name: resnet50, timm:…")
    add("images", nargs="+", type=Path, help="image files, or folders of them")
    add("--out", type=Path, default=Path("explanations"), help="folder (default: explanations)")
    add(
        "--target",
        default=PREDICTED,
        help=f"what to explain: {PREDICTED}, {ALL} for every class, or a class's name or index "
        f"(default: {PREDICTED})",
    )
    add("--composite", default="flex", help=f"of rules: {', '.join(COMPOSITES)} (default: flex)")
    add("--epsilon", type=float, default=1e-2, help="the stabiliser (default: 0.01)")
    add(
        "--input-rule",
        default="zb",
        help=f"for the first layer: {', '.join(INPUT_RULES)} or none (default: zb)",
    )
    add("--formats", nargs="+", default=list(FORMATS), help="png, npy (default: both)")
    add("--weights", type=Path, help="of a network by name: a file (default: its own pretrained)")
    add("--classes", type=int, default=1000, help="of a network by name (default: 1000)")
    add("--size", type=int, default=224, help="of images for a network by name (default: 224)")
    add("--batch-size", type=int, default=8, help="images at a time (default: 8)")
    add("--skip-unreadable", action="store_true", help="go on without images that cannot be read")
    return parser


def _explain(options: Namespace) -> list[dict[str, str | int | float]]:
    is_file = Path(options.model).is_file()
    if is_file:
        bundle = ModelBundle.from_checkpoint(Path(options.model))
    else:
        bundle = ModelBundle.by_name(options.model, options.classes, options.size, options.weights)
    input_rule = None if options.input_rule == "none" else options.input_rule
    explainer = Explainer(bundle.network, options.composite, options.epsilon, input_rule)
    return write_explanations(
        explainer,
        image_files(options.images),
        options.out,
        _target(options.target, bundle.class_names),
        prepare=bundle.prepare,
        class_names=bundle.class_names,
        task=bundle.task,
        formats=options.formats,
        batch_size=options.batch_size,
        skip_unreadable=options.skip_unreadable,
    )


def _target(target: str, class_names: Sequence[str]) -> int | str | None:
    if target == PREDICTED:
        return None
    if target == ALL:
        return "all-classes"
    if target in class_names:
        return list(class_names).index(target)
    if target.isdecimal() and int(target) < len(class_names):
        return int(target)
    raise ValueError(
        f"target {target!r} is neither {PREDICTED!r}, {ALL!r}, a class nor its index; the classes "
        f"are: {', '.join(map(repr, list(class_names)[:20]))}"
    )
