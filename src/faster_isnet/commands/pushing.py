"""Run ``faster-isnet push``: put a trained classifier on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from jsonargparse import Namespace

from faster_isnet import __version__
from faster_isnet.commands.arguments import CommandParser, command_parser
from faster_isnet.commands.model_bundle import ModelBundle
from faster_isnet.commands.network_loading import is_of_fit
from faster_isnet.commands.run_folder import best_checkpoint, run_folder
from faster_isnet.commands.testing import FOLDER
from faster_isnet.common.files import file_hash, write_atomically
from faster_isnet.common.recipes import ARGUMENTS, CLASS
from faster_isnet.evaluation.saved_evaluation import METRICS, SavedEvaluation
from faster_isnet.models.weight_files import read_checkpoint
from faster_isnet.reporting.classifier_card import classifier_card
from faster_isnet.training.export import export
from faster_isnet.training.hub import CARD, HUB, UPLOADED, upload
from faster_isnet.training.image_classifier import ImageClassifier


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    if options.out is not None:
        _write(options, options.out)
        print(f"Not uploaded: {', '.join(UPLOADED)} in {options.out.resolve()}")
        return
    with TemporaryDirectory() as folder:
        _write(options, Path(folder))
        revision = upload(Path(folder), options.name, private=options.private, token=options.token)
    print(f"Uploaded: {', '.join(UPLOADED)}\nTo use it: {HUB}{options.name}@{revision}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "push",
        "Put a trained classifier on the Hugging Face Hub: weights, what its network is built by, "
        "and a card. No image, heatmap or path of this machine is uploaded.",
    )
    add = parser.add_argument
    add("run", type=str, help="a folder or a checkpoint of faster-isnet fit")
    add("name", type=str, help="where to: ORG/NAME, which is made if there is none")
    add("--private", type=bool, default=False, help="make it private, if it is made")
    add(
        "--token",
        type=str | None,
        default=None,
        help="of a user who may write there (default: HF_TOKEN of the environment, or that of hf "
        "auth login)",
    )
    add(
        "--license",
        type=str | None,
        default=None,
        help="of the weights, as the Hub calls it: cc-by-4.0 (default: none is named)",
    )
    add(
        "--trained_on",
        type=str | None,
        default=None,
        help="what it was trained on, in words, for the card (default: it is not told)",
    )
    add(
        "--out", type=Path, help="write what would be uploaded into this folder, and upload nothing"
    )
    return parser


def _write(options: Namespace, folder: Path) -> None:
    """Write all that is uploaded into a folder."""
    if not is_of_fit(options.run):
        raise ValueError(
            f"{options.run!r} is no folder or checkpoint of faster-isnet fit; only its runs can be "
            "uploaded"
        )
    run = Path(options.run)
    checkpoint = best_checkpoint(run) if run.is_dir() else run
    lit = ImageClassifier.load_deployed(checkpoint)
    bundle = ModelBundle.of(lit)
    export(
        bundle.network,
        folder,
        bundle.image_shape,
        ["safetensors"],
        bundle.class_names,
        architecture=bundle.architecture,
        task=bundle.task,
        built_by=lit.built_by(),
    )
    card = classifier_card(
        options.name,
        architecture=bundle.architecture,
        class_names=bundle.class_names,
        preprocessing=bundle.preprocessing,
        sha256=bundle.sha256,
        method=_method(checkpoint),
        trained_on=options.trained_on,
        licence=options.license,
        evaluation=_evaluation(checkpoint),
        version=__version__,
    )
    write_atomically(folder / CARD, card.encode())


def _method(checkpoint: Path) -> str:
    """Return the class of the method that a checkpoint was trained by."""
    described = read_checkpoint(checkpoint).get("recipe") or {}
    method = described.get(ARGUMENTS, {}).get("method") or {}
    path: str | None = method.get(CLASS)
    return "a method that the checkpoint does not name" if path is None else path.rpartition(".")[2]


def _evaluation(checkpoint: Path) -> SavedEvaluation | None:
    """Load the run's test, if there is one of this checkpoint."""
    folder = run_folder(checkpoint) / FOLDER
    if not (folder / METRICS).is_file():
        print("The card has no scores: the run was not tested (faster-isnet test)")
        return None
    saved = SavedEvaluation.load(folder)
    if saved.checkpoint_sha256 != file_hash(checkpoint):
        print(f"The card has no scores: {folder} is of another checkpoint")
        return None
    return saved
