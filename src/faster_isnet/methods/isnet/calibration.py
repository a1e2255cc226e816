"""Finding C1 and C2: the natural range of a plain classifier's relevance (method §5)."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchmetrics import CatMetric

from faster_isnet.common.batch import Batch, says_too_few_samples
from faster_isnet.common.checks import check_range
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import count_bar
from faster_isnet.common.torch_private import with_own_iteration
from faster_isnet.explaining.explanation import Explanation
from faster_isnet.methods.isnet.cuts import IMAGE, Cuts
from faster_isnet.methods.isnet.loss import ISNetLoss
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.methods.mask_presence import MaskPresence, no_masks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerRelevance:
    """The absolute relevance Σ|h| of one layer's heatmaps, over samples.

    Attributes
    ----------
    mean, std
        For each of a sample's heatmaps (each rule's, for the dual ISNet).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def cut_low(self) -> tuple[float, ...]:
        """C1 = max(m/5, m − 3s) of each heatmap."""
        return tuple(max(m / 5, m - 3 * s) for m, s in zip(self.mean, self.std, strict=True))

    @property
    def cut_high(self) -> tuple[float, ...]:
        """C2 = min(25·C1, m + 3s) of each heatmap."""
        each = zip(self.mean, self.std, self.cut_low, strict=True)
        return tuple(min(25 * c1, m + 3 * s) for m, s, c1 in each)


@dataclass(frozen=True)
class Calibration:
    """What a calibration found (Bassi et al., Nature Communications 15, 291, 2024; method §5).

    Attributes
    ----------
    layers
        The absolute relevance at the image (``"image"``) and at each supervised layer.
    samples
        How many samples it was measured on.

    Examples
    --------
    >>> found = Calibration({"image": LayerRelevance((10.0,), (2.0,))}, samples=100)
    >>> found.cuts
    Cuts(low={'image': (4.0,)}, high={'image': (16.0,)})
    >>> print(found)
    Σ|h| over 100 samples
    layer   heatmap        mean         std          C1          C2
    image         1          10           2           4          16
    """

    layers: dict[str, LayerRelevance]
    samples: int

    @property
    def cuts(self) -> Cuts:
        """C1 and C2, for ``ISNetLoss``."""
        return Cuts.of(
            {name: layer.cut_low for name, layer in self.layers.items()},
            {name: layer.cut_high for name, layer in self.layers.items()},
        )

    def save(self, path: str | Path) -> None:
        """Write it to a JSON file."""
        write_atomically(Path(path), (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` has written.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        try:
            content = json.loads(Path(path).read_text())
            layers = {
                name: LayerRelevance(tuple(layer["mean"]), tuple(layer["std"]))
                for name, layer in content["layers"].items()
            }
            return cls(layers, content["samples"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} holds no calibration ({error!r}); give a file that Calibration.save wrote"
            ) from error

    def __str__(self) -> str:
        """Return a table."""
        width = max(map(len, self.layers))
        rows = [f"Σ|h| over {self.samples} samples"]
        columns = ("mean", "std", "C1", "C2")
        rows.append(f"{'layer':<{width}} {'heatmap':>9}" + "".join(f"{c:>12}" for c in columns))
        for name, layer in self.layers.items():
            numbers = zip(layer.mean, layer.std, layer.cut_low, layer.cut_high, strict=True)
            for k, row in enumerate(numbers, start=1):
                rows.append(f"{name:<{width}} {k:>9}" + "".join(f"{v:>12.4g}" for v in row))
        return "\n".join(rows)


def calibrate(net: ISNet, batches: Iterable[Any]) -> Calibration:
    """Measure the range of a trained standard classifier's relevance.

    Parameters
    ----------
    net
        The classifier, with the variant, rules and layers that the ISNet will be trained with. It
        is explained in eval mode and left as it was.
    batches
        Such as a data loader's, see :class:`~faster_isnet.methods.Batch`; only images are read,
        and moved to the classifier's device.

    Returns
    -------
    Calibration
        Mean and standard deviation of Σ|h| for each layer and heatmap, and C1 and C2.

    Raises
    ------
    ValueError
        If there are fewer than two samples, or no relevance at all.
    FloatingPointError
        If a heatmap is not finite.

    Examples
    --------
    >>> net = ISNet(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), input_rule=None)
    >>> found = calibrate(net, [(torch.rand(4, 3, 2, 2),), (torch.rand(4, 3, 2, 2),)])
    >>> found.samples
    8
    """
    sizes, device = _Sizes(), next((p.device for p in net.parameters()), None)
    with eval_mode(net), torch.no_grad():
        for batch in batches:
            sizes.update(net.explain(Batch.of(batch).images.to(device)))
    return sizes.compute()


class _Method(Protocol):
    loss: ISNetLoss

    def training_batch(self, network: ISNet, batch: Batch) -> Batch: ...


class _Trained(Protocol):
    """What the callback needs of the Lightning module that trains an ISNet."""

    net: ISNet
    method: _Method
    gradient_clip: float | None
    device: torch.device

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer: ...


class CutCalibration(lightning.Callback):
    """Calibrate C1 and C2 of a :class:`~faster_isnet.LitISNet` when it starts to train.

    A copy of the classifier is trained without the heatmap loss for a few epochs, on the images
    that the ISNet is trained on, swapped and mixed as there; in the last of them the relevance of
    each batch is measured. The copy is then thrown away: the ISNet starts from its own weights.
    Where several processes train, they train one copy together and find the
    same C1 and C2. A criterion that has its C1 and C2, as in a run that is resumed, is left
    as it is.

    Parameters
    ----------
    epochs
        Of the plain classifier, at least 1.

    Attributes
    ----------
    calibration : Calibration or None
        What was found.

    Raises
    ------
    ValueError
        If ``epochs`` is below 1.
    """

    def __init__(self, epochs: int = 3) -> None:
        super().__init__()
        self.epochs = int(check_range("epochs", epochs, 1))
        self.calibration: Calibration | None = None

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Train the copy and calibrate."""
        lit: _Trained = pl_module  # type: ignore[assignment]
        loss = lit.method.loss
        if loss.cuts is not None:
            return
        log.info("Calibrating C1 and C2: %d epochs of a standard classifier", self.epochs)
        self.calibration = self._measure(trainer, lit)
        loss.cuts = self.calibration.cuts
        log.info("%s", self.calibration)

    def _measure(self, trainer: lightning.Trainer, lit: _Trained) -> Calibration:
        net = copy.deepcopy(lit.net)
        optimizer = lit.build_optimizer(net.parameters())
        sizes, masks = _Sizes(), MaskPresence()
        assert trainer.train_dataloader is not None  # Lightning has it once training starts
        loader = with_own_iteration(trainer.train_dataloader)  # the training's has begun
        steps = self.epochs * trainer.num_training_batches
        bar = count_bar(steps, "step", trainer.is_global_zero, what="calibrating C1 and C2")
        with torch.enable_grad(), _own_random_numbers(), bar:
            for epoch in range(self.epochs):
                for number, batch in enumerate(loader):
                    if number >= trainer.num_training_batches:
                        break
                    bar.update()
                    batch = trainer.precision_plugin.convert_input(Batch.of(batch))
                    batch = trainer.strategy.batch_to_device(batch, lit.device)
                    if epoch == 0:
                        masks.update(batch)
                    optimizer.zero_grad()
                    trained = lit.method.training_batch(net, batch)
                    try:
                        logits = net(trained.images)
                    except ValueError as error:
                        if says_too_few_samples(error):
                            continue  # as in the training
                        raise
                    loss = lit.method.loss.classify(logits, trained.needed("labels"))
                    loss.backward()  # type: ignore[no-untyped-call]
                    _average_gradients(net, trainer)
                    nn.utils.clip_grad_norm_(net.parameters(), lit.gradient_clip or float("inf"))
                    optimizer.step()
                    if epoch == self.epochs - 1:
                        with eval_mode(net), torch.no_grad():
                            sizes.update(net.explain(trained.images))
                if epoch == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                    _check_any(masks, trainer)
        return sizes.compute()


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Draw from the run's seed inside the block, and leave the state as it was.

    A training is the same then whether its cuts are measured or given, and whether the first of its
    batches have been drawn by worker processes already or not.
    """
    with isolate_rng():
        torch.manual_seed(torch.initial_seed())
        yield


def _check_any(masks: MaskPresence, trainer: lightning.Trainer) -> None:
    if trainer.strategy.reduce_boolean_decision(not masks.any, all=True):
        raise no_masks(masks.samples)


def _average_gradients(net: ISNet, trainer: lightning.Trainer) -> None:
    """Give the gradients of all processes' batches to each, which DDP does for what it wraps."""
    for parameter in net.parameters():
        if parameter.grad is not None:
            mean = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
            assert isinstance(mean, Tensor)
            parameter.grad = mean


class _Sizes:
    """Collects Σ|h| of each layer and heatmap, on all processes of a run."""

    def __init__(self) -> None:
        self._by_layer: dict[str, CatMetric] = {}

    def update(self, explanation: Explanation) -> None:
        for name, relevance in {IMAGE: explanation.heatmap, **explanation.layers}.items():
            size = relevance.detach().abs().flatten(2).sum(2)
            new = CatMetric(nan_strategy="disable").to(size.device)
            self._by_layer.setdefault(name, new).update(size.flatten())
            self._heatmaps = size.shape[1]

    def compute(self) -> Calibration:
        sizes = {
            name: metric.compute().reshape(-1, self._heatmaps).cpu().double()
            for name, metric in self._by_layer.items()
        }
        samples = min((len(size) for size in sizes.values()), default=0)
        if samples < 2:
            raise ValueError(f"calibration needs at least 2 samples, got {samples}; add data")
        layers = {}
        for name, size in sizes.items():
            if not bool(size.isfinite().all()):
                raise FloatingPointError(
                    f"the relevance at {name!r} holds NaN or infinite values; lower the learning "
                    "rate"
                )
            if not bool((size.mean(0) > 0).all()):
                raise ValueError(
                    f"no relevance arrives at {name!r}; calibrate a trained classifier"
                )
            std, mean = torch.std_mean(size, 0)
            layers[name] = LayerRelevance(tuple(mean.tolist()), tuple(std.tolist()))
        return Calibration(layers, samples)
