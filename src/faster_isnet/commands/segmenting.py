"""Run ``faster-isnet segment``: write masks, with a segmenter trained on masks or by others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from faster_isnet.commands.arguments import CommandParser, command_parser, image_files, parameters
from faster_isnet.common.checks import check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.data import (
    Foreground,
    ImageData,
    Sample,
    add_mask_folder,
    from_table,
    list_images,
)
from faster_isnet.data.masks import MASK_TABLE
from faster_isnet.reporting import write_mask_review
from faster_isnet.reporting.mask_review_page import MOST
from faster_isnet.segmentation import (
    Hint,
    HintedSegmenter,
    Segmenter,
    SegmenterSettings,
    compare_masks,
    fit_segmenter,
    hinted_segmenter,
    load_segmenter,
    predict_masks,
    pretrained_segmenter,
    read_hints,
)
from faster_isnet.segmentation.pretrained import GRABCUT, HINTED, PROMPT, SALIENT, SAM2

_HINTS = ("boxes", "points")
_OF_MASKS = ("mask_foreground", "mask_threshold")
NETWORKS_HELP = (
    "salient: the object that an image shows; coco:CLASS,…: all that is of these classes; "
    "prompt:TEXT: what the text describes; run: what a segmenter of faster-isnet segment fit finds"
)
_SHOWN = 5


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    commands = {"auto": _auto, "compare": _compare, "fit": _fit, "predict": _predict}
    commands[options.subcommand](options[options.subcommand])


def parser() -> CommandParser:
    """Return the command's parser, with one for each of its commands."""
    parser = CommandParser(
        prog="faster-isnet segment",
        description="Write masks of images: with networks that others have trained, or with a "
        "segmenter that is trained on images that have masks.",
    )
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("auto", _auto_parser(), help="write masks without any to learn from")
    commands.add_subcommand("compare", _compare_parser(), help="say how far masks agree")
    commands.add_subcommand("fit", _fit_parser(), help="train; reports Dice on held-out images")
    commands.add_subcommand("predict", _predict_parser(), help="write masks, name implausible ones")
    return parser


def _auto_parser() -> CommandParser:
    parser = command_parser(None, "Write masks of images with a network that is trained already.")
    add = parser.add_argument
    add("images", nargs="+", type=Path, help="image files, or folders of them")
    add("--out", type=Path, default=Path("masks"), help="folder of the masks")
    add(
        "--with",
        type=str | None,
        default=None,
        help=f"{NETWORKS_HELP}, whose folder is --weights; {GRABCUT}: what differs in its colours "
        f"from what is around --boxes; {SAM2}: the objects of --boxes or --points (default: "
        f"{SALIENT})",
    )
    add("--prompt", help="what to find, in words: short for --with prompt:TEXT")
    parser.add_parameters(pretrained_segmenter, skip=("name",), group=False)
    add(
        "--boxes",
        type=Path | None,
        default=None,
        help=f"for --with {GRABCUT} and {SAM2}: a table (image, x0, y0, x1, y1 in pixels, a row "
        "for each object; or image, mask), or a folder of masks that are too large",
    )
    add(
        "--points",
        type=Path | None,
        default=None,
        help=f"for --with {SAM2}: a table (image, x, y, label: 1 in the foreground, 0 not)",
    )
    parser.add_parameters(ImageData, only=_OF_MASKS, group=False)
    _add_options_of_masks(parser)
    return parser


def _compare_parser() -> CommandParser:
    parser = command_parser(None, "Measure how far two folders of masks agree.")
    add = parser.add_argument
    add("masks", type=Path, help="a folder of masks")
    add("others", type=Path, help="another one, with masks of the same images by their names")
    add("--out", type=Path, help="a CSV file of all images, the least agreeing first")
    parser.add_parameters(ImageData, only=("mask_foreground", "mask_threshold"), group=False)
    return parser


def _fit_parser() -> CommandParser:
    parser = command_parser(None, "Train a U-Net on images that have masks.")
    add = parser.add_argument
    add(
        "source",
        type=Path,
        help="a folder of images, or a table (CSV, Parquet) with columns image, mask, and group "
        "if some belong together, such as a patient's",
    )
    add("--masks", type=Path, help="a folder of masks named as the images are")
    parser.add_parameters(ImageData, only=("mask_foreground", "mask_threshold"), group=False)
    add("--out", type=Path, default=Path("segmenter"), help="folder of the segmenter")
    parser.add_class_arguments(SegmenterSettings, "settings")
    return parser


def _predict_parser() -> CommandParser:
    parser = command_parser(None, "Write masks of images.")
    add = parser.add_argument
    add("segmenter", type=Path, help="the folder of faster-isnet segment fit")
    add("images", nargs="+", type=Path, help="image files, or folders of them")
    add("--out", type=Path, default=Path("masks"), help="folder of the masks")
    _add_options_of_masks(parser)
    return parser


def _add_options_of_masks(parser: CommandParser) -> None:
    parser.add_parameters(predict_masks, skip=("segmenter", "images", "out", "hints"), group=False)
    parser.add_argument(
        "--review",
        type=int,
        default=MOST,
        help="number of masks, the least plausible ones, on the page to look at them; 0 for none",
    )


def _fit(options: Namespace) -> None:
    samples = [sample for sample in _samples(options) if isinstance(sample.mask, Path)]
    if not samples:
        raise ValueError(f"no image of {str(options.source)!r} has a mask; name them: --masks")
    settings = SegmenterSettings.from_dict(options.settings.as_dict())
    found = fit_segmenter(
        [(Path(sample.name), Path(str(sample.mask))) for sample in samples],
        options.out,
        settings,
        [sample.group for sample in samples],
        Foreground.of(options.mask_foreground, options.mask_threshold),
    )
    held_out = len(found["held_out"])
    print(f"Dice {found['dice']:.3f}, IoU {found['iou']:.3f} on {held_out} held-out images")
    print(f"The segmenter: {options.out.resolve()}")


def _samples(options: Namespace) -> list[Sample]:
    if options.source.is_file():
        samples, _ = from_table(options.source, label=None)
        return samples
    samples = [Sample(path) for path in list_images(options.source)]
    if options.masks is None:
        return samples
    return add_mask_folder(samples, options.source, options.masks)


def _auto(options: Namespace) -> None:
    name = options["with"] or SALIENT
    if options.prompt is not None:
        if options["with"] not in (None, PROMPT):
            raise ValueError(f"--prompt {options.prompt!r} is not for --with {name}; leave out one")
        name = f"{PROMPT}:{options.prompt}"
    images = image_files(options.images)
    chosen = parameters(pretrained_segmenter, options) | {"name": name}
    if name in HINTED:
        hints = _hints(images, options)  # before weights are loaded
        _write_masks(hinted_segmenter(**chosen), options, images, hints)
        return
    for option in (*_HINTS, *_OF_MASKS):
        if options[option] is not None:
            raise ValueError(
                f"--with {name} reads no --{option}; choose --with {GRABCUT} or {SAM2}, or leave "
                "it out"
            )
    _write_masks(pretrained_segmenter(**chosen), options, images)


def _hints(images: Sequence[Path], options: Namespace) -> dict[Path, Hint]:
    boxes, only = options.boxes, options.images[0]
    if boxes is not None and boxes.resolve() == options.out.resolve():
        raise ValueError(
            f"the masks would be written where those of --boxes are, {str(boxes)!r}; name another "
            "folder: --out"
        )
    root = options.root
    if root is None and len(options.images) == 1 and only.is_dir():
        root = only
    foreground = Foreground.of(options.mask_foreground, options.mask_threshold)
    return read_hints(images, boxes, options.points, root, foreground)


def _compare(options: Namespace) -> None:
    foreground = Foreground.of(options.mask_foreground, options.mask_threshold)
    table = compare_masks(options.masks, options.others, foreground)
    if options.out is not None:
        write_atomically(options.out, safe_csv(table))
    print(f"{len(table)} images have a mask in both")
    numbers = table.drop(columns=["mask", "other"]).quantile([0.5, 0.1, 0.9])
    numbers.index = ["median", "10 % quantile", "90 % quantile"]
    print(numbers.to_string(float_format="{:.3f}".format))
    print("They agree least on:")
    for row in table.head(_SHOWN).itertuples():
        print(f"  {row.mask}: IoU {row.iou:.3f}, Dice {row.dice:.3f}")
    if options.out is not None:
        print(f"The table: {options.out.resolve()}")


def _predict(options: Namespace) -> None:
    images = image_files(options.images)
    _write_masks(load_segmenter(options.segmenter), options, images)


def _write_masks(
    segmenter: Segmenter | HintedSegmenter,
    options: Namespace,
    images: Sequence[Path],
    hints: dict[Path, Hint] | None = None,
) -> None:
    check_range("review", options.review, 0)  # before masks are written
    given = parameters(predict_masks, options) | {
        "segmenter": segmenter,
        "images": images,
        "hints": hints,
    }
    table = predict_masks(**given)
    drawn = table["mask"] != ""
    implausible = int((drawn & ~table["plausible"].astype(bool)).sum())
    print(f"{len(table)} images, {implausible} masks implausible")
    for reason, count in table["reason"][~drawn].value_counts().head(_SHOWN).items():
        print(f"{count} images have no mask: {reason}")
    print(f"The table: {(options.out / MASK_TABLE).resolve()}")
    if options.review:
        page = write_mask_review(table, options.out, options.review)
        print(f"Look at them: {page.resolve()}")
