"""Training with Lightning."""

from __future__ import annotations

import copy
import csv
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK, Explanation, ISNet, ISNetLoss, LitISNet

PARTS = ("loss", "classification", "heatmap", "accuracy")


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(144, 4)),
    )


def batch(n: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(n, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    return torch.rand(n, 3, 8, 8), torch.randint(0, 4, (n,)), masks


def loader(*tensors: Tensor, size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), size)


def module(criterion: ISNetLoss | None = None, **options: Any) -> LitISNet:
    """An ISNet that sees the images as they are, so that what it logs can be computed again."""
    options = {"swapped_backgrounds": 0, "schedule": "constant"} | options
    return LitISNet(ISNet(network()), criterion or ISNetLoss(cut_low=0.1), **options)


def fit(
    lit: LitISNet, train: Any, val: Any = None, epochs: int = 1, **options: Any
) -> lightning.Trainer:
    options = {"logger": False, "enable_checkpointing": False} | options
    trainer = lightning.Trainer(
        max_epochs=epochs, enable_progress_bar=False, enable_model_summary=False, **options
    )
    trainer.fit(lit, train, val)
    return trainer


def run(out: Path, *arguments: str) -> int:
    script = Path(__file__).parents[1] / "resumable_run.py"
    return subprocess.run(
        [sys.executable, str(script), str(out), *arguments], capture_output=True, check=False
    ).returncode


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole) == 0
    assert run(broken, "--kill") == -signal.SIGKILL
    assert not (broken / "final.pt").exists()
    last = torch.load(broken / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    assert run(broken, "--resume") == 0
    expected, found = (torch.load(d / "final.pt", weights_only=True) for d in (whole, broken))
    assert expected.pop("P") == found.pop("P") == pytest.approx(0.6)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_logged_values_are_means_over_samples() -> None:
    x, y, masks = batch()
    lit = module()
    trainer = fit(lit, loader(x, y, masks), {"iid": loader(x, y, masks), "ood": loader(x, y)})
    logged = {f"{stage}/{part}" for stage in ("train", "val/iid", "val/ood") for part in PARTS}
    kinds = ("blur", "noise", "zeros", "other_image")
    replaced = {f"val/iid/accuracy_{kind}" for kind in kinds}
    worst = {"val/iid/worst_accuracy", "val/iid/background_error"}
    outside = {f"val/{name}/out_of_range" for name in ("iid", "ood")}
    assert set(trainer.callback_metrics) == logged | replaced | worst | outside
    lit.eval()
    parts = lit.criterion(lit.net.explain(x), y, masks)
    logged = {name: trainer.callback_metrics[f"val/iid/{name}"] for name in PARTS}
    torch.testing.assert_close(logged["loss"], parts.total.detach())
    torch.testing.assert_close(logged["heatmap"], parts.heatmap.detach())
    torch.testing.assert_close(logged["classification"], parts.classification.detach())
    torch.testing.assert_close(logged["accuracy"], (lit(x).argmax(1) == y).float().mean())
    assert trainer.callback_metrics["val/ood/heatmap"] == 0


def test_names_of_one_loader_and_of_a_list() -> None:
    data = loader(*batch())
    assert "val/loss" in fit(module(), data, data).callback_metrics
    assert "val/1/loss" in fit(module(), data, [data, data]).callback_metrics


def test_csv_and_tensorboard(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, version="csv"), TensorBoardLogger(tmp_path, version="tb")]
    data = loader(*batch())
    fit(module(), data, data, epochs=2, logger=loggers, log_every_n_steps=1)
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in (f"{stage}/{part}" for stage in ("train", "val") for part in PARTS):
        assert len([row for row in rows if row[name]]) == 2
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert b"train/heatmap" in events.read_bytes()


def test_weight_zero_is_the_plain_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ISNet, "explain", lambda *_: pytest.fail("relevance was computed"))
    x, y, masks = batch()
    lit = module(ISNetLoss(0.0), optimizer="sgd", learning_rate=0.1, gradient_clip=None)
    plain = copy.deepcopy(lit.net.backbone)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9)
    for start in (0, 8, 16):
        optimizer.zero_grad()
        F.cross_entropy(plain(x[start : start + 8]), y[start : start + 8]).backward()
        optimizer.step()
    fit(lit, loader(x, y, masks), loader(x, y, masks))
    for ours, theirs in zip(lit.net.backbone.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class Recorder(Callback):
    """Notes the norm of the gradient at each step, and P and the learning rate by epoch."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.weights: list[float] = []
        self.rates: list[float] = []

    def on_before_zero_grad(self, trainer: Any, lit: Any, optimizer: Any) -> None:
        gradients = [p.grad for p in lit.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    def on_train_batch_start(self, trainer: Any, lit: Any, batch: Any, index: int) -> None:
        if index == 0:
            self.weights.append(lit.criterion.heatmap_weight)
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("variant", ["selective", "dual", "original"])
def test_accumulated_gradients_are_those_of_the_large_batch(variant: str) -> None:
    """With batch norm in eval mode; samples without a mask count, too."""
    x, y, masks = batch()
    masks[::3] = NO_MASK
    model, found = network().eval(), []

    class Keep(Callback):
        def on_before_optimizer_step(self, trainer: Any, lit: Any, optimizer: Any) -> None:
            found.append([p.grad.clone() for p in lit.net.parameters()])

    for size, batches in ((20, 1), (5, 4)):
        net = ISNet(copy.deepcopy(model), variant)
        loss = ISNetLoss(cut_low=0.1)
        lit = LitISNet(net, loss, swapped_backgrounds=0, gradient_clip=None)
        fit(
            lit, loader(x, y, masks, size=size), callbacks=[Keep()], accumulate_grad_batches=batches
        )
    large, accumulated = found
    for ours, theirs in zip(accumulated, large, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("module_clip", "trainer_clip", "largest"),
    [(1.0, None, 1.0), (0.5, None, 0.5), (1.0, 0.25, 0.25), (None, None, None)],
)
def test_gradients_are_clipped(
    module_clip: float | None, trainer_clip: float | None, largest: float | None
) -> None:
    x, y, masks = batch()
    lit, recorder = module(gradient_clip=module_clip, learning_rate=1e-9), Recorder()
    with torch.no_grad():
        lit.net.backbone[4].weight.mul_(10)
    fit(lit, loader(x, y, masks), callbacks=[recorder], gradient_clip_val=trainer_clip)
    assert recorder.norms
    if largest is None:
        assert max(recorder.norms) > 1.5
    else:
        assert max(recorder.norms) == pytest.approx(largest, rel=1e-3)


def test_schedules_of_the_heatmap_weight_and_the_learning_rate() -> None:
    rates = {"schedule": None, "milestones": [2, 3], "gamma": 0.5, "learning_rate": 0.01}
    lit = module(heatmap_weight_schedule={1: 0.0, 3: 0.5}, **rates)
    recorder = Recorder()
    fit(lit, loader(*batch()), epochs=5, callbacks=[recorder])
    assert recorder.weights == pytest.approx([0, 0, 0.25, 0.5, 0.5])
    assert recorder.rates == pytest.approx([0.01, 0.01, 0.005, 0.0025, 0.0025])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_get_their_options(name: str, kind: type) -> None:
    lit = module(optimizer=name, learning_rate=0.02, weight_decay=0.03, momentum=0.7)
    optimizer = lit.configure_optimizers()
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.03)
    assert group.get("momentum", 0.7) == 0.7


@pytest.mark.parametrize("heatmap_weight", [0.0, 0.7])
def test_a_bad_batch_stops_training_before_it_touches_the_weights(
    heatmap_weight: float, tmp_path: Path
) -> None:
    x, y, masks = batch(32)
    x[20] = torch.nan
    lit = module(ISNetLoss(heatmap_weight))
    seen: dict[str, Any] = {}

    class Keep(Callback):
        def on_train_batch_start(self, trainer: Any, lit: Any, batch: Any, index: int) -> None:
            seen.update(weights=copy.deepcopy(list(lit.parameters())), index=index)

    what = "samples \\[4\\]" if heatmap_weight else "classification loss is nan"
    kind = ValueError if heatmap_weight else FloatingPointError
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    with pytest.raises(kind, match=f"batch 2 of epoch 0: .*{what}"):
        fit(lit, loader(x, y, masks), callbacks=[Keep(), checkpoint], enable_checkpointing=True)
    assert seen["index"] == 2
    for before, now in zip(seen["weights"], lit.parameters(), strict=True):
        assert torch.equal(before, now)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_weights_that_have_exploded_are_named() -> None:
    lit = module()
    with torch.no_grad():
        lit.net.backbone[4].weight.fill_(3e38)
    with pytest.raises(FloatingPointError, match=r"batch 0 of epoch 0: .*not finite|NaN|is inf"):
        fit(lit, loader(*batch()))


def test_samples_without_masks_and_frozen_layers_train() -> None:
    x, y, masks = batch()
    masks[::2] = NO_MASK
    for loss, tensors in ((ISNetLoss(0), (x, y)), (ISNetLoss(), (x, y, masks))):
        lit = module(loss)
        lit.net.backbone[0].requires_grad_(False)
        before = copy.deepcopy(lit.net.backbone)
        fit(lit, loader(*tensors))
        assert torch.equal(lit.net.backbone[0].weight, before[0].weight)
        assert not torch.equal(lit.net.backbone[4].weight, before[4].weight)


def test_multilabel_accuracy_counts_labels() -> None:
    x, _, masks = batch()
    y = (torch.rand(20, 4) < 0.5).long()
    lit = module(ISNetLoss(task="multilabel"))
    trainer = fit(lit, loader(x, y, masks), loader(x, y, masks))
    right = ((lit.eval()(x) > 0) == y.bool()).float().mean()
    torch.testing.assert_close(trainer.callback_metrics["val/accuracy"], right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adamW2"}, "did you mean 'adamw'"),
        ({"learning_rate": 0}, r"learning_rate must be a number in \(0, inf\), got 0"),
        ({"gradient_clip": -1.0}, "gradient_clip must be"),
        ({"heatmap_weight_schedule": {3: 2.0}}, r"heatmap_weight_schedule\[3\] must be"),
        ({"supervised_part": 0}, r"supervised_part must be a number in \(0, 1\], got 0"),
        ({"supervise_every": 0}, "supervise_every must be"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_a_bare_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"got Sequential; wrap your model: ISNet\(model\)"):
        LitISNet(network())  # type: ignore[arg-type]


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images of each batch that is explained."""
    batches: list[Tensor] = []
    explain = ISNet.explain

    def noted(net: ISNet, images: Tensor) -> Explanation:
        batches.append(images)
        return explain(net, images)

    monkeypatch.setattr(ISNet, "explain", noted)
    return batches


def test_every_third_step_is_supervised(explained: list[Tensor]) -> None:
    so_far: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            so_far.append(len(explained))

    lit = module(supervise_every=3)
    fit(lit, loader(*batch(), size=4), epochs=2, callbacks=[Count()])
    assert so_far == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


def test_steps_are_counted_as_the_optimizer_does(explained: list[Tensor]) -> None:
    data = loader(*batch(16), size=2)
    fit(module(supervise_every=2), data, accumulate_grad_batches=4)
    assert len(explained) == 4


def test_a_part_of_each_batch_is_supervised(explained: list[Tensor]) -> None:
    x, y, masks = batch()
    fit(module(supervised_part=0.3), loader(x, y, masks), loader(x, y, masks), epochs=2)
    sizes = [len(images) for images in explained]
    sanity, train, validation = [8, 8], [3, 3, 2], [8, 8, 4]
    assert sizes == sanity + 2 * (train + validation)
    assert not torch.equal(*(explained[i].sort(0).values for i in (2, 8)))  # drawn anew


@pytest.mark.parametrize("with_masks", [True, False])
def test_the_loss_of_a_part(with_masks: bool, explained: list[Tensor]) -> None:
    x, y, masks = batch(8)
    lit = module(supervised_part=0.5).eval()
    tensors = (x, y, masks) if with_masks else (x, y)
    total = lit.training_step(tensors, 0)
    whole = lit.criterion(lit.net.explain(x), y, None)
    (chosen,) = explained[:1]
    heatmap = whole.heatmap
    if with_masks:
        heatmap = lit.criterion(lit.net.explain(chosen), y[:4], masks[:4]).heatmap
    expected = lit.criterion.join(whole.classification, heatmap).total
    torch.testing.assert_close(total, expected)
    ours, theirs = (
        torch.autograd.grad(value, list(lit.net.parameters())) for value in (total, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_images_alone_are_predicted() -> None:
    x, _, _ = batch(3)
    lit = module().eval()
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False)
    (logits,) = trainer.predict(lit, DataLoader(x, 3))
    torch.testing.assert_close(logits, lit(x))


def test_tests_are_logged_by_loader() -> None:
    x, y, masks = batch()
    lit = module()
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False)
    (own, other) = trainer.test(
        lit, {"test": loader(x, y, masks), "elsewhere": loader(x, y)}, verbose=False
    )
    parts = (*PARTS, "out_of_range")
    assert set(own) == {f"test/{part}" for part in parts}
    assert set(other) == {f"test/elsewhere/{part}" for part in parts}
    right = (lit.eval()(x).argmax(1) == y).float().mean().item()
    assert own["test/accuracy"] == other["test/elsewhere/accuracy"] == pytest.approx(right)


def test_values_for_an_accelerator_are_checked_before_they_go_there() -> None:
    x, y, masks = batch(4)
    lit = module().to("meta")
    assert lit.on_before_batch_transfer((x, y, masks), 0)[0] is x
    with pytest.raises(ValueError, match=r"in samples \[1\]"):
        lit.on_before_batch_transfer((x.index_fill(0, torch.tensor(1), torch.nan), y, masks), 0)
    with pytest.raises(ValueError, match="masks must hold 0 and 1 only"):
        lit.on_before_batch_transfer((x, y, masks / 2), 0)


def test_pixels_outside_of_zbs_bounds_stop_before_they_go_to_an_accelerator() -> None:
    x, y, masks = batch(4)
    lit = module().to("meta")
    with pytest.raises(ValueError, match=r"the pixels lie in .*input_high, \[0, 1\].*/ 255.*-mean"):
        lit.on_before_batch_transfer((255 * x, y, masks), 0)
    lit.on_before_batch_transfer(255 * x, 0)  # what is only predicted is not explained
    lit.method.loss.heatmap_weight = 0.0
    lit.on_before_batch_transfer((255 * x, y, masks), 0)


def test_pixels_are_read_once_before_they_go_to_an_accelerator() -> None:
    class Read(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.functions: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if isinstance(args[0], Tensor) and args[0].numel() == x.numel():
                self.functions.append(str(func))
            return func(*args, **(kwargs or {}))

    x, y, _ = batch(4)
    lit = module().to("meta")
    with Read() as read:
        lit.on_before_batch_transfer((x, y), 0)
    assert read.functions == ["aten.aminmax.default"]
