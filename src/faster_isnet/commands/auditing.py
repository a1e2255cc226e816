"""Run ``faster-isnet audit``: measure how much anybody's classifier depends on the background."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.commands.audited_images import PICTURES, AuditedImages, audited_images, stamp
from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.commands.network_loading import add_network_options, load_network
from faster_isnet.commands.segmenting import NETWORKS_HELP
from faster_isnet.common.checks import check_range
from faster_isnet.common.environment import machine
from faster_isnet.common.files import file_hash, write_atomically
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.data import (
    ImageData,
    ImageDataset,
)
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
    Measured,
    Model,
    Parts,
    audit_findings,
)
from faster_isnet.evaluation.audit.auditor import INPUT_RULE
from faster_isnet.evaluation.audit.variants import ANOTHER_CLASS
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.explaining.support import Support
from faster_isnet.plotting.heatmaps import heatmap_figure, percent, png
from faster_isnet.plotting.thumbnails import outlined_thumbnail, thumbnail
from faster_isnet.reporting import audit_text, write_audit_page
from faster_isnet.segmentation.pretrained import RUN

REPORT, CARD = "report.html", "model-card.md"
TOO_MANY_CHANGE = 3
"""The exit status if more predictions change than ``--fail_above`` allows."""
_PARTS = "unfinished"
_NAMED = 10  # classes in a sentence
_SIDE = 240  # of pictures, in pixels


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
        help="a checkpoint or a folder of faster-isnet fit; hub:ORG/NAME; a network's name: "
        "resnet50, timm:…; package.module:function, which builds a network; an ONNX or "
        "TorchScript file",
    )
    add(
        "images",
        type=Path,
        help="a folder of images, or a table (CSV, Parquet) with a column image, and, where there "
        "are such, mask, group (such as the patient) and attribute (such as the scanner)",
    )
    add("--masks", type=Path, help="a folder of masks named as the images are")
    add("--with", type=str, help=f"draw masks of images that have none with: {NETWORKS_HELP}")
    add(
        "--mask_weights",
        type=Path,
        help="of --with: its file of weights; for run and prompt its folder",
    )
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
    support, why_not = _support(bundle, settings.composite)
    audited = AuditedNetwork(bundle.network, bundle.class_names, bundle.task, support is not None)
    auditor = Auditor(audited, settings)
    images = audited_images(options)
    channels, height, width = bundle.image_shape
    dataset = ImageDataset(images.judged, (height, width), channels, resizing=bundle.resizing)
    model = Model(
        options.model,
        bundle.architecture,
        len(bundle.class_names),
        bundle.task,
        bundle.preprocessing,
        bundle.sha256,
        bundle.revision,
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


def _support(bundle: ModelBundle, composite: str) -> tuple[Support | None, str]:
    """Say how exactly the network is explained, or why it cannot be."""
    if not bundle.differentiable:
        return None, f"{bundle.architecture} has no gradients for LRP to follow"
    try:
        return Explainer.supports(
            bundle.network, bundle.image_shape, composite=composite, input_rule=INPUT_RULE
        ), ""
    except (RuntimeError, ValueError, TypeError) as error:
        return None, f"LRP cannot explain {bundle.architecture}: {error}"


def _identity(
    model: Model, settings: AuditSettings, images: AuditedImages, bundle: ModelBundle
) -> Mapping[str, Any]:
    """Return all that the measurement depends on; images by the sizes and times of their files."""
    return {
        "model": asdict(model),
        "class_names": list(bundle.class_names),
        "code": None if bundle.code is None else file_hash(bundle.code),
        "settings": asdict(settings),
        "images": [
            [
                *(sample.name, stamp(sample.image), repr(sample.mask), stamp(sample.mask)),
                *(sample.group, sample.attribute),
            ]
            for sample in images.judged
        ],
        "environment": machine(),
    }


def _not_judged(
    bundle: ModelBundle,
    images: AuditedImages,
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
            "that is left in the part and the size that the network sees."
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
    kind, table = measured.variants.realistic, measured.images
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
    changed = shown[measured.variants.names.index(measured.variants.realistic)]
    row = measured.images.loc[index]
    name = f"{PICTURES}/{number:02}"
    write_atomically(out / f"{name}-original.jpg", outlined_thumbnail(image, mask, _SIDE))
    write_atomically(out / f"{name}-changed.jpg", thumbnail(changed, _SIDE))
    if heatmap is not None:
        drawn = png(heatmap_figure(image, heatmap, mask), dpi=100)
        write_atomically(out / f"{name}-heatmap.png", drawn)
    opinions = [each.save(out, name) for each in auditor.opinions(image, mask, heatmap)]
    return AuditPicture(
        image=str(row["name"]),
        predicted=str(row["predicted"]),
        probability=float(row["probability"]),
        becomes=str(row["becomes"]),
        background_share=None if heatmap is None else float(row["background share"]),
        background_area=float(row["background area"]),
        original=f"{name}-original.jpg",
        changed=f"{name}-changed.jpg",
        heatmap=None if heatmap is None else f"{name}-heatmap.png",
        opinions=opinions,
    )
