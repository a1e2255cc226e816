"""Run ``faster-isnet audit``: measure how much anybody's classifier depends on the background."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from jsonargparse import Namespace

from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.commands.model_bundle import ModelBundle, add_network_options, load_network
from faster_isnet.commands.segmenting import NETWORKS_HELP
from faster_isnet.common.checks import check_range
from faster_isnet.common.environment import machine
from faster_isnet.common.files import file_hash, write_atomically
from faster_isnet.common.spreadsheets import original_cell, safe_csv
from faster_isnet.data import (
    Findings,
    Foreground,
    ImageData,
    ImageDataset,
    Sample,
    add_mask_folder,
    check_samples,
    from_table,
    list_images,
)
from faster_isnet.data.sources import choose_foreground
from faster_isnet.evaluation.audit import (
    AUDIT,
    FEWEST,
    IMAGES,
    Audit,
    AuditedNetwork,
    AuditFindings,
    Auditor,
    AuditPicture,
    AuditSettings,
    Counts,
    Masks,
    Measured,
    Model,
    Parts,
    audit_findings,
)
from faster_isnet.evaluation.audit.variants import ANOTHER_CLASS
from faster_isnet.explaining.support import Support
from faster_isnet.plotting.heatmaps import heatmap_figure, percent, png
from faster_isnet.plotting.thumbnails import outlined_thumbnail, thumbnail
from faster_isnet.reporting import audit_text, write_audit_page
from faster_isnet.segmentation import predict_masks, pretrained_segmenter
from faster_isnet.segmentation.prediction import MASK_TABLE
from faster_isnet.segmentation.pretrained import RUN

REPORT, CARD = "report.html", "model-card.md"
TOO_MANY_CHANGE = 3
"""The exit status if more predictions change than ``--fail_above`` allows."""
_MASKS, _PARTS, _PICTURES = "masks", "unfinished", "pictures"
_DRAWN_FROM = "drawn-from.json"
_NAMED = 10  # classes in a sentence
_SIDE = 240  # of pictures, in pixels


@dataclass(frozen=True)
class _Images:
    """The images of an audit: what was found, which are judged, and whose masks those are."""

    findings: Findings
    judged: list[Sample]
    masks: Masks

    @property
    def counts(self) -> Counts:
        usable = self.findings.samples
        unreadable = len(self.findings.unusable)
        return Counts(len(usable) + unreadable, len(usable) - len(self.judged), unreadable)


def run(arguments: Sequence[str]) -> int:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    audit = _audit(options)
    print(audit_text.summary(audit))
    print(f"\nThe report: {(options.out / REPORT).resolve()}")
    if audit.failed:
        print(f"The share of predictions that change is above --fail_above {percent(audit.limit)}.")
        return TOO_MANY_CHANGE
    return 0


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "audit",
        "Measure how much a trained classifier depends on the background of images: anybody's "
        "classifier, which is not trained here. Loading a TorchScript file, or a network by "
        "package.module:function, runs their code.",
    )
    add = parser.add_argument
    add(
        "model",
        type=str,
        help="a checkpoint or a folder of faster-isnet fit; a network's name: resnet50, timm:…; "
        "package.module:function, which builds a network; an ONNX or TorchScript file",
    )
    add(
        "images",
        type=Path,
        help="a folder of images, or a table (CSV, Parquet) with a column image, and, where there "
        "are such, mask, group (such as the patient) and attribute (such as the scanner)",
    )
    add("--masks", type=Path, help="a folder of masks named as the images are")
    add("--with", type=str, help=f"draw masks of images that have none with: {NETWORKS_HELP}")
    add("--mask_weights", type=Path, help="of --with: its file of weights, or for run its folder")
    add(
        "--download",
        type=bool,
        default=False,
        help="of --with: download its weights if they are not on this machine",
    )
    parser.add_parameters(ImageData, only=("mask_foreground", "mask_threshold"), group=False)
    add("--out", type=Path, default=Path("audit"), help="folder of report, audit.json and pictures")
    add("--name", type=str, help="what to call the classifier (default: as it was given)")
    add(
        "--fail_above",
        type=float | None,
        default=None,
        help="exit with status 3 if the share of predictions that change is above this, whatever "
        "its interval; in [0, 1] (default: never)",
    )
    add(
        "--skip_unreadable",
        type=bool,
        default=False,
        help="go on without images that cannot be read, and say how many",
    )
    add_network_options(parser)
    parser.add_parameters(AuditSettings)
    return parser


def _audit(options: Namespace) -> Audit:
    started = time.perf_counter()
    if options["with"] == RUN and options.mask_weights is None:
        raise ValueError(f"--with {RUN} needs the segmenter's folder: --mask_weights FOLDER")
    if options.fail_above is not None:
        check_range("fail_above", options.fail_above, 0, 1)
    settings = AuditSettings(**parameters(AuditSettings, options))
    bundle = load_network(options.model, options)
    bundle.check_takes_images_alone("an audit")
    print(f"Images become: {bundle.preprocessing}", flush=True)
    audited = AuditedNetwork(bundle.network, bundle.class_names, bundle.task, bundle.differentiable)
    auditor = Auditor(audited, settings)
    support, why_not = _support(auditor, bundle)
    if why_not:
        auditor = Auditor(replace(audited, differentiable=False), settings)
    images = _images(options)
    channels, height, width = bundle.image_shape
    dataset = ImageDataset(images.judged, (height, width), channels)
    model = Model(
        options.model,
        bundle.architecture,
        len(bundle.class_names),
        bundle.task,
        bundle.preprocessing,
        bundle.sha256,
    )
    parts = Parts(options.out / _PARTS, _identity(model, settings, images, bundle))
    measured = auditor(dataset, parts)
    (options.out / AUDIT).unlink(missing_ok=True)  # of an earlier audit, whose files are replaced
    write_atomically(options.out / IMAGES, safe_csv(measured.images))
    found = audit_findings(measured, settings)
    counts = replace(
        images.counts, without_mask=images.counts.given - images.counts.unreadable - found.images
    )
    audit = Audit(
        name=options.name or Path(options.model).name,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 1),
        model=model,
        counts=counts,
        masks=images.masks,
        findings=found,
        fail_above=options.fail_above,
        explained=None if support is None else str(support),
        not_judged=_not_judged(bundle, images, found, support, why_not, counts.without_mask),
        pictures=_pictures(options.out, auditor, measured, settings.pictures),
        settings=asdict(settings),
        environment=machine(),
        folder=str(options.out),
    )
    audit.save()
    write_audit_page(options.out / REPORT, [audit])
    write_atomically(options.out / CARD, audit_text.model_card(audit).encode())
    parts.remove()
    return audit


def _support(auditor: Auditor, bundle: ModelBundle) -> tuple[Support | None, str]:
    """Say how exactly the network is explained, or why it cannot be."""
    if not bundle.differentiable:
        return None, f"{bundle.architecture} has no gradients for LRP to follow"
    try:
        return auditor.support(bundle.image_shape), ""
    except (RuntimeError, ValueError, TypeError) as error:
        return None, f"LRP cannot explain {bundle.architecture}: {error}"


def _images(options: Namespace) -> _Images:
    """Read which images there are, draw masks that are missing, and check all of them."""
    if options.images.is_file():
        samples, _ = from_table(options.images, label=None)
    else:
        own = [options.out / _MASKS, options.out / _PICTURES]
        if options.masks is not None:
            own.append(options.masks)
        folders = [each.resolve() for each in own if each.resolve() != options.images.resolve()]
        samples = [
            Sample(path)
            for path in list_images(options.images)
            if not any(path.resolve().is_relative_to(folder) for folder in folders)
        ]
    if options.masks is not None:
        root = options.images if options.images.is_dir() else options.images.parent
        samples = add_mask_folder(samples, root, options.masks)
    samples = choose_foreground(
        samples, Foreground.of(options.mask_foreground, options.mask_threshold)
    )
    source, implausible = _mask_source(samples, options), None
    if options["with"] is not None:
        samples, implausible = _drawn(samples, options)
    elif options.masks is not None:
        implausible = _implausible(options.masks / MASK_TABLE)
    samples = [replace(sample, label=0, split="test") for sample in samples]
    findings = check_samples(samples, (), options.skip_unreadable, allow_duplicates=True)
    judged = findings.with_foreground(findings.samples)
    if len(judged) < 2:
        raise ValueError(
            f"{len(judged)} of {len(findings.samples)} images have a mask, but an audit needs two; "
            "name masks (--masks, or a column of the table), or have them drawn: --with salient"
        )
    return _Images(findings, judged, Masks(source, implausible))


def _mask_source(samples: Sequence[Sample], options: Namespace) -> str:
    given = ""
    if any(sample.mask is not None for sample in samples):
        given = "those of the table" if options.masks is None else f"the folder {options.masks}"
    if options["with"] is None:
        return given or "none"
    drawn = f"drawn by {options['with']!r}"
    return f"{given}, and where they lack one {drawn}" if given else drawn


def _drawn(samples: Sequence[Sample], options: Namespace) -> tuple[list[Sample], int]:
    """Draw masks of images that have none; those of an earlier audit are used again."""
    lacking = [sample.image for sample in samples if sample.mask is None]
    files = [image for image in lacking if isinstance(image, Path)]
    if not files:
        return list(samples), 0
    folder, table = options.out / _MASKS, _draw(files, options)
    masks = {
        original_cell(str(image)): folder / original_cell(str(mask))
        for image, mask in zip(table["image"], table["mask"], strict=True)
        if mask
    }
    drawn = [replace(s, mask=s.mask or masks.get(s.name)) for s in samples]
    is_drawn = table["mask"] != ""
    return drawn, int((is_drawn & ~table["plausible"].astype(bool)).sum())


def _draw(files: Sequence[Path], options: Namespace) -> pd.DataFrame:
    """Write masks, or take those of an earlier audit of the same files by the same network."""
    folder = options.out / _MASKS
    record = folder / _DRAWN_FROM
    stamps = [[str(file), _stamp(file)] for file in files]
    weights = _stamps(options.mask_weights)
    drawn_from = json.dumps([options["with"], weights, stamps]).encode()
    if record.is_file() and record.read_bytes() == drawn_from:
        return pd.read_csv(folder / MASK_TABLE, keep_default_na=False)
    record.unlink(missing_ok=True)  # until all masks are those of this audit
    segmenter = pretrained_segmenter(options["with"], None, options.mask_weights, options.download)
    table = predict_masks(
        segmenter, files, folder, overwrite=True, skip_unreadable=options.skip_unreadable
    )
    write_atomically(record, drawn_from)
    return table


def _implausible(table: Path) -> int | None:
    """Count the masks that the table of ``faster-isnet segment`` calls implausible."""
    if not table.is_file():
        return None
    found = pd.read_csv(table)
    return int((~found["plausible"].astype(bool)).sum()) if "plausible" in found else None


def _identity(
    model: Model, settings: AuditSettings, images: _Images, bundle: ModelBundle
) -> Mapping[str, Any]:
    """Return all that the measurement depends on; images by the sizes and times of their files."""
    return {
        "model": asdict(model),
        "class_names": list(bundle.class_names),
        "code": None if bundle.code is None else file_hash(bundle.code),
        "settings": asdict(settings),
        "images": [
            [
                *(sample.name, _stamp(sample.image), repr(sample.mask), _stamp(sample.mask)),
                *(sample.group, sample.attribute),
            ]
            for sample in images.judged
        ],
        "environment": machine(),
    }


def _stamp(file: object) -> list[int]:
    path = Path(str(file))
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def _stamps(path: Path | None) -> list[list[int]]:
    """Return sizes and times of a file, or of all files in a folder."""
    if path is None:
        return []
    return [_stamp(file) for file in sorted(path.rglob("*"))] if path.is_dir() else [_stamp(path)]


def _not_judged(
    bundle: ModelBundle,
    images: _Images,
    found: AuditFindings,
    support: Support | None,
    why_not: str,
    without_mask: int,
) -> list[str]:
    """Return what could not be judged, in sentences."""
    counts, told = images.counts, []
    if counts.unreadable:
        first = next(iter(images.findings.unusable.values()))
        told.append(
            f"{counts.unreadable} images that cannot be used, or whose masks cannot; one of them: "
            f"{first}."
        )
    if without_mask:
        told.append(
            f"{without_mask} of {counts.given} images, which have no mask with foreground, or none "
            "that is left in the network's size."
        )
    doubts = [each.replace("--data.", "--") for each in images.findings.doubtful_masks]
    told += [f"Perhaps the masks: {doubt}." for doubt in doubts]
    if why_not:
        told.append(f"Where the network looks: {why_not}.")
    if support is not None and support.unknown:
        told.append(
            "Where it looks is not known exactly: relevance is passed by the gradient through "
            f"{', '.join(support.unknown)}."
        )
    if found.realistic != ANOTHER_CLASS:
        told.append(
            "Backgrounds of another class: all images are predicted as the same. Those of other "
            "images are used instead."
        )
    if found.too_few:
        more = len(found.too_few) - _NAMED
        told.append(
            f"Classes and attributes that have fewer than {FEWEST} images: "
            f"{', '.join(found.too_few[:_NAMED])}{f' and {more} more' if more > 0 else ''}."
        )
    if bundle.task == "multilabel":
        told.append("Thresholds other than 0.5, above which a class is assigned.")
    told.append("Whether predictions are right: an audit knows no labels.")
    return told


def _pictures(out: Path, auditor: Auditor, measured: Measured, count: int) -> list[AuditPicture]:
    """Draw the images whose predictions change most with the realistic background."""
    kind, table = measured.realistic, measured.images
    by = [f"changed: {kind}", f"change of probabilities: {kind}"]
    order = table.sort_values(by, ascending=False, kind="stable").index[:count]
    return [
        _picture(out, number, auditor, measured, int(index)) for number, index in enumerate(order)
    ]


def _picture(
    out: Path, number: int, auditor: Auditor, measured: Measured, index: int
) -> AuditPicture:
    shown, masks = measured.variants[index]
    image, mask = shown[0], masks[0]
    heatmap = auditor.heatmap(image)
    changed = shown[measured.variants.names.index(measured.realistic)]
    row = measured.images.loc[index]
    name = f"{_PICTURES}/{number:02}"
    write_atomically(out / f"{name}-original.jpg", outlined_thumbnail(image, mask, _SIDE))
    write_atomically(out / f"{name}-changed.jpg", thumbnail(changed, _SIDE))
    if heatmap is not None:
        drawn = png(heatmap_figure(image, heatmap, mask), dpi=100)
        write_atomically(out / f"{name}-heatmap.png", drawn)
    return AuditPicture(
        image=str(row["name"]),
        predicted=str(row["predicted"]),
        probability=float(row["probability"]),
        becomes=str(row["becomes"]),
        background_share=None if heatmap is None else float(row["background share"]),
        original=f"{name}-original.jpg",
        changed=f"{name}-changed.jpg",
        heatmap=None if heatmap is None else f"{name}-heatmap.png",
    )
