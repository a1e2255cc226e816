"""Run ``faster-isnet test``: evaluate a trained classifier on unseen images."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.commands.network_loading import (
    NetworkOptions,
    add_network_options,
    is_of_fit,
    load_network,
)
from faster_isnet.commands.run_folder import (
    CONFIG,
    best_checkpoint,
    recorded_division,
    run_folder,
    training_warnings,
)
from faster_isnet.common.checks import check_choice
from faster_isnet.common.files import file_hash
from faster_isnet.common.recipes import ARGUMENTS, CLASS
from faster_isnet.data import (
    BiasedDigitsData,
    ClassifierData,
    Division,
    ImageData,
    ImageSet,
    Planting,
    Sample,
)
from faster_isnet.evaluation.evaluator import EvaluationSettings, Evaluator
from faster_isnet.evaluation.operating_points import choose_operating_thresholds
from faster_isnet.evaluation.saved_evaluation import METRICS, SavedEvaluation, save_evaluation
from faster_isnet.evaluation.thresholds import choose_thresholds
from faster_isnet.reporting import text_table, write_evaluation_page

FOLDER, VALIDATION_FOLDER = "test", "test-validation"
REPORT = "report.html"
_NO_IMAGES = (
    "the run's data hold no images to score; name others: --source; or if some were added since "
    "the training: --new_images test"
)
_GO_ON = ("skip_unreadable", "allow_duplicates")
_DATA_CLASSES = {
    f"{ImageData.__module__.rpartition('.')[0]}.{each.__name__}": each
    for each in (BiasedDigitsData, ImageData)
}
"""Those of which a run's configuration may have an object constructed."""
_OF_SOURCE = ("root", "fields", "masks", "mask_foreground", "mask_threshold")


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    saved = evaluate(arguments)
    page = write_evaluation_page(saved.folder / REPORT, [saved])
    print(f"\nThe report: {page.resolve()}")


@dataclass(frozen=True)
class _Tested:
    """A classifier, the images to test it on, and where the results go.

    ``folder`` is the run's; ``None`` for a network that ``faster-isnet fit`` has not trained.
    """

    bundle: ModelBundle
    checkpoint: Path
    data: ClassifierData
    sets: Mapping[str, ImageSet]
    out: Path
    folder: Path | None = None


def evaluate(arguments: Sequence[str]) -> SavedEvaluation:
    """Do what :func:`run` does, without its page, whose drawings take as long as a short test."""
    options = parser().parse_args(list(arguments[1:]))
    started = time.perf_counter()
    tested = (_run_of_fit if is_of_fit(options.run) else _network_of_others)(options)
    bundle, folder = tested.bundle, tested.folder
    settings = EvaluationSettings(**parameters(EvaluationSettings, options))
    evaluator = Evaluator(bundle.network, list(bundle.class_names), settings, inputs=bundle.inputs)
    thresholds = _Thresholds()
    if folder is not None:
        thresholds = _thresholds(evaluator, tested, folder, options.validation)
    if not thresholds.operating and settings.specificity != EvaluationSettings.specificity:
        print(
            "--specificity is not used: thresholds of operating points need validation images of "
            "a run of faster-isnet fit, or its test on its own data before that on others"
        )
    evaluations = {
        name: evaluator(dataset, thresholds.deciding, thresholds.operating)
        for name, dataset in tested.sets.items()
    }
    for name, found in evaluations.items():
        if lacking := [each for each in options.subgroups if each not in found.results.subgroups]:
            print(f"No image of {name!r} has a value of {', '.join(lacking)}: no subgroups of it")
    save_evaluation(
        tested.out,
        evaluations,
        evaluator,
        name=options.name or (folder or tested.checkpoint).resolve().name,
        checkpoint=tested.checkpoint,
        seconds=time.perf_counter() - started,
        revision=bundle.revision,
        training_warnings=() if folder is None else training_warnings(folder),
    )
    saved = SavedEvaluation.load(tested.out)
    print(text_table([saved]))
    return saved


def _run_of_fit(options: Namespace) -> _Tested:
    NetworkOptions(**parameters(NetworkOptions, options)).check_unused(options.run)
    run = Path(options.run)
    checkpoint = run if run.is_file() else best_checkpoint(run)
    folder = run_folder(run)
    bundle = ModelBundle.from_checkpoint(checkpoint)
    data = _external_data(options, bundle, folder) if options.source else _own_data(options, folder)
    data.match_classes(bundle.class_names)
    if bundle.needs_every_mask:
        data.leave_out_unmasked()  # as in the training; thresholds are chosen on the others
    sets = data.evaluation_sets("val" if options.validation else "test")
    if not sets:
        raise ValueError(_NO_IMAGES)
    if bundle.needs_every_mask:
        _check_all_masked(data, sets)
    if options.source:
        sets = {options.source.stem: sets["test"]}
    out = options.out or folder / _folder_name(options)
    return _Tested(bundle, checkpoint, data, sets, out, folder)


def _network_of_others(options: Namespace) -> _Tested:
    for name in ("validation", "new_images", "trained_images"):
        if options[name]:
            raise ValueError(
                f"--{name} is about a run of faster-isnet fit, which {options.run!r} is not; leave "
                "it out"
            )
    bundle = load_network(options.run, options)
    bundle.check_has_gradients("test")
    if options.source is None:
        raise ValueError(
            f"{options.run!r} is no run of faster-isnet fit, which would know its images; name "
            "them: --source"
        )
    print(f"Images become: {bundle.preprocessing}")
    names = None if bundle.names_no_classes else bundle.class_names
    data = _images_of_source(options, bundle, names)
    if names is None and data.num_classes == len(bundle.class_names):
        bundle = replace(bundle, class_names=data.class_names)
        print(
            f"The network's classes are taken to be, in this order: {', '.join(data.class_names)}; "
            "if they are not, name them: --class_names"
        )
    data.match_classes(bundle.class_names)
    sets = {options.source.stem: data.evaluation_sets("test")["test"]}
    return _Tested(bundle, Path(options.run), data, sets, options.out or Path(FOLDER))


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "test",
        "Score a classifier on images that it has not seen, with intervals; show where it looks, "
        "and what it makes of other backgrounds.",
    )
    add = parser.add_argument
    add(
        "run",
        type=str,
        help="the folder of faster-isnet fit, or a checkpoint of it; or, with --source, the name "
        "of a network (resnet50, timm:…), package.module:function, which builds one, or "
        "hub:ORG/NAME",
    )
    add(
        "--source",
        type=Path,
        help="other images: a folder of class folders, a table (.csv, .parquet) or HDF5 (default: "
        "the run's own); the next five are of these",
    )
    parser.add_parameters(ImageData, only=_OF_SOURCE, group=False)
    add(
        "--subgroups",
        type=list[str],
        default=[],
        help="columns of the images' table by whose values they are also scored apart: [site, sex]",
    )
    add(
        "--trained_images",
        type=bool,
        default=False,
        help="test on images of --source although the run was trained on them",
    )
    add(
        "--validation",
        type=bool,
        default=False,
        help="score the run's validation images instead, to choose options without a test image",
    )
    add(
        "--out",
        type=Path,
        help="folder (default: RUN/test, RUN/test-SOURCE or -validation; of others' networks test)",
    )
    add("--name", type=str, help="what to call the run in tables (default: its folder's name)")
    parser.add_parameters(ImageData, only=("new_images", *_GO_ON), group=False)
    add_network_options(parser)
    parser.add_parameters(EvaluationSettings, skip=("resamples",))
    add(
        "--resamples",
        "--samples",  # its name in 0.1
        type=int,
        default=EvaluationSettings.resamples,
        help="number of resamples of groups of images for an interval",
    )
    return parser


def _folder_name(options: Namespace) -> str:
    if options.validation:
        return VALIDATION_FOLDER
    return f"{FOLDER}-{options.source.stem}" if options.source else FOLDER


def _own_data(options: Namespace, folder: Path) -> ClassifierData:
    """Return the data that the run was trained with."""
    for name in (*_OF_SOURCE, "trained_images"):
        if options[name] not in (None, False):
            raise ValueError(f"--{name} is for images from elsewhere; name them with --source")
    config = _data_config(folder)
    if not config:
        raise FileNotFoundError(
            f"there is no {folder / CONFIG}, which would say what to test on; name it: --source"
        )
    if CLASS in config:
        check_choice(f"class of data in {str(folder / CONFIG)!r}", config[CLASS], _DATA_CLASSES)
        kind = _DATA_CLASSES[config[CLASS]]
        config = dict(config.get(ARGUMENTS) or {})
        if kind is not ImageData:
            if options.subgroups:
                raise ValueError(
                    f"--subgroups names columns of a table, but the run's data are "
                    f"{kind.__name__}, which has none; leave it out"
                )
            return kind(**config)
    for name in _GO_ON:
        config[name] = config.get(name, False) or options[name]
    config["new_images"] = options.new_images
    config["fields"] = _fields(config.get("fields"), options)
    config["division"] = recorded_division(folder) or config.get("division")
    # These are of training and validation images alone, and the file may be anybody's.
    config["augmentation"] = config["worse_masks"] = None
    _check_plain(config.get("planting"), folder / CONFIG)
    parser = ArgumentParser()
    parser.add_class_arguments(ImageData, "data")
    data: ImageData = parser.instantiate_classes(parser.parse_object({"data": config})).data
    return data


def _fields(
    fields: dict[str, str | list[str]] | None, options: Namespace
) -> dict[str, str | list[str]] | None:
    """Return names of columns, with those of subgroups."""
    return {**(fields or {}), "subgroups": options.subgroups} if options.subgroups else fields


def _check_plain(planting: object, path: Path) -> None:
    """Raise ``ValueError`` if a configuration would have another class than ours constructed."""
    known = {field.name for field in fields(Planting)}
    if planting is not None and not (isinstance(planting, dict) and planting.keys() <= known):
        raise ValueError(
            f"data.planting in {str(path)!r} is {planting!r}; test constructs nothing from a run's "
            f"folder but marks with the options {', '.join(sorted(known))}; correct the file"
        )


def _check_unseen(samples: Sequence[Sample], division: Path | None) -> None:
    """Raise ``ValueError`` if a run was trained on some of these images."""
    if division is None:
        return
    trained = Division.load(division).trained_on(samples)
    if trained:
        raise ValueError(
            f"the run was trained on {len(trained)} of these {len(samples)} images, for example "
            f"{', '.join(trained[:5])}; leave them out, or test on them all the same: "
            "--trained_images"
        )


def _external_data(options: Namespace, bundle: ModelBundle, folder: Path) -> ImageData:
    """Return other data, for a network that is there already."""
    if options.validation:
        raise ValueError("--validation is of the run's own images; leave out --source")
    if options.new_images is not None:
        raise ValueError("--new_images is of the run's own images; those of --source are all used")
    margin = _data_config(folder).get("mask_margin", 0.0)
    data = _images_of_source(options, bundle, bundle.class_names, margin)
    if not options.trained_images:
        _check_unseen(data.datasets["test"].samples, recorded_division(folder))
    return data


def _images_of_source(
    options: Namespace,
    bundle: ModelBundle,
    class_names: Sequence[str] | None,
    mask_margin: float = 0.0,
) -> ImageData:
    channels, *size = bundle.image_shape
    data = ImageData(
        {"test": options.source},
        options.root,
        _fields(options.fields, options),
        options.masks,
        mask_foreground=options.mask_foreground,
        mask_threshold=options.mask_threshold,
        class_names=None if class_names is None else list(class_names),
        task=bundle.task,
        size=(size[0], size[1]),
        channels=channels,
        mask_margin=mask_margin,
        **{name: options[name] for name in _GO_ON},
    )
    data.resize_by(bundle.resizing)
    return data


def _data_config(folder: Path) -> dict[str, Any]:
    """Read the data part of a run's configuration; it is empty if there is no configuration."""
    path = folder / CONFIG
    return dict(yaml.safe_load(path.read_text())["data"]) if path.is_file() else {}


def _check_all_masked(data: ClassifierData, names: Iterable[str]) -> None:
    """Raise ``ValueError`` if an image has no mask, for a network that needs the mask of each."""
    for name in names:
        without = sorted(data.unmasked_images(name))
        if without:
            raise ValueError(
                f"the network reads the foreground alone, but {len(without)} of the "
                f"{len(data.datasets[name])} images of {name!r} have no mask, for example "
                f"{', '.join(without[:5])}; make masks for them (faster-isnet segment), or test on "
                "images that all have one (--source, --masks)"
            )


@dataclass(frozen=True)
class _Thresholds:
    """Thresholds of probabilities, chosen on validation images, by class.

    ``deciding`` is ``None`` unless images have several labels.
    """

    deciding: Mapping[str, float] | None = None
    operating: Mapping[str, float] = field(default_factory=dict)


def _thresholds(
    evaluator: Evaluator, tested: _Tested, folder: Path, on_validation: bool
) -> _Thresholds:
    """Choose thresholds on the run's validation images, or load those of its earlier test.

    Validation images that are scored themselves get no operating points.
    """
    data, several = tested.data, tested.data.task == "multilabel"
    if "val" in data.datasets:
        if on_validation and not several:
            return _Thresholds()
        validation = evaluator.predict(data.datasets["val"])
        chosen = choose_operating_thresholds(validation, evaluator.settings.specificity)
        deciding = choose_thresholds(validation) if several else None
        return _Thresholds(deciding, {} if on_validation else chosen)
    earlier = folder / FOLDER / METRICS
    if not earlier.is_file():
        if not several:
            return _Thresholds()
        raise FileNotFoundError(
            f"there is no {earlier}, whose thresholds to take; test the run on its own data first, "
            f"where its validation images are: faster-isnet test {folder}"
        )
    saved = SavedEvaluation.load(folder / FOLDER)
    first = next(iter(saved.sets.values()))
    deciding = dict(first.thresholds or {}) if several else None
    if saved.checkpoint_sha256 not in ("", file_hash(tested.checkpoint)):  # "" of earlier versions
        reason = f"{earlier} is of another checkpoint, whose thresholds are not those of this one"
        if several:
            raise ValueError(
                f"{reason}; test this one on the run's own data first: faster-isnet test "
                f"{tested.checkpoint}"
            )
        print(f"No operating points: {reason}")
        return _Thresholds()
    if first.operating_points and saved.settings.specificity != evaluator.settings.specificity:
        raise ValueError(
            f"{str(earlier)!r} has thresholds for a specificity of {saved.settings.specificity:g}, "
            f"not {evaluator.settings.specificity:g}; test the run on its own data first with this "
            "--specificity"
        )
    operating = {name: point.threshold for name, point in first.operating_points.items()}
    return _Thresholds(deciding, operating)
