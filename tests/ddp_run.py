"""Training by several processes, as a program: ``ddp_run.py OUT cpu|gpu``.

Each case trains for one step; every process writes the gradients it has then. Some do so once more
with sharded weights, and a last run stops and is resumed. Imported, it says what the cases are.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset, TensorDataset

from cpu_sync_batch_norm import cpu_allowed
from faster_isnet import NO_MASK, CutCalibration, ISNet, ISNetLoss, LitISNet

PROCESSES, SAMPLES = 2, 12
LAYERS = ["2", "6"]
# Images as they are, and steps of one size.
AS_THEY_ARE: dict[str, Any] = {
    "swapped_backgrounds": 0,
    "optimizer": "sgd",
    "schedule": "constant",
}


@dataclass(frozen=True)
class Case:
    """One step of training."""

    variant: str = "selective"
    heatmap_weight: float = 0.7
    synchronised: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    masks_of: tuple[int, ...] = (0, 1)
    auto: bool = False

    def lit(self) -> LitISNet:
        model = network()
        if not self.synchronised:
            model.eval()
        criterion = ISNetLoss(self.heatmap_weight, cut_low="auto" if self.auto else 0.1)
        # A calibration that learns nothing if the processes did not learn together.
        options = {"calibration_epochs": 2, "learning_rate": 0.1, "gradient_clip": None}
        net = ISNet(model, self.variant, **{"deep_supervision": False, **self.options})
        return LitISNet(net, criterion, **AS_THEY_ARE, **options)

    def data(self) -> TensorDataset:
        """Return the samples; those of a rank are every second from there."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(SAMPLES, 3, 8, 8, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, 4, (SAMPLES,), generator=generator)
        masks = torch.zeros(SAMPLES, 1, 8, 8)
        masks[..., 2:6, 2:6] = 1
        for rank in range(PROCESSES):
            if rank not in self.masks_of:
                masks[rank::PROCESSES] = NO_MASK
        return TensorDataset(images, labels, masks)


CASES = {
    "plain": Case(heatmap_weight=0.0),
    "selective": Case(),
    "stochastic": Case("stochastic"),
    "dual": Case("dual"),
    "original": Case("original"),
    "deep supervision": Case(options={"deep_supervision": LAYERS}),
    "heatmap alone": Case(heatmap_weight=1.0),
    "masks on one process": Case(masks_of=(1,)),
    "no masks": Case(masks_of=(), heatmap_weight=0.0),  # refused with a weight
    "plain, synchronised": Case(heatmap_weight=0.0, synchronised=True),
    "selective, synchronised": Case(synchronised=True),
    "dual, synchronised": Case("dual", synchronised=True),
    "original, synchronised": Case("original", synchronised=True),
    "deep supervision, synchronised": Case(options={"deep_supervision": LAYERS}, synchronised=True),
    "no input rule, synchronised": Case(options={"input_rule": None}, synchronised=True),
    "calibration": Case(auto=True),
}

BY_HAND = ("selective", "dual", "original", "deep supervision")
SHARDED = {False: "by hand", True: "sharded"}


def network() -> nn.Sequential:
    """Two batch norms: the first is one with the layer that reads the pixels."""
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 4)),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double()  # with few samples float32 has few digits


class Keep(lightning.Callback):
    """Keeps what a step has found, and draws the same in every process."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def on_train_batch_start(self, *_: object) -> None:
        torch.manual_seed(2)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, lit: LitISNet, *_: object
    ) -> None:
        self.found["gradients"] = gradients(lit.net)
        self.found["buffers"] = {k: v.cpu().clone() for k, v in lit.net.named_buffers()}

    def on_train_end(self, trainer: lightning.Trainer, lit: LitISNet) -> None:
        self.found["logged"] = {k: v.cpu() for k, v in trainer.callback_metrics.items()}
        for callback in trainer.callbacks:
            if isinstance(callback, CutCalibration) and callback.calibration:
                self.found["sizes"] = callback.calibration.layers["image"]


def gradients(net: ISNet) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {name: grad.detach().cpu().clone() for name, grad in found.items() if grad is not None}


def fit(case: Case, **options: Any) -> tuple[int, dict[str, Any]]:
    """Train for one step; return this process's rank and what it has found."""
    lit, keep = case.lit(), Keep()
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        callbacks=[keep],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # Lightning's would shuffle
        **options,
    )
    share = range(trainer.global_rank, SAMPLES, trainer.world_size)
    loader = DataLoader(Subset(case.data(), share), len(share))
    trainer.fit(lit, loader, loader)
    return trainer.global_rank, keep.found


class Step(nn.Module):
    """A step without Lightning."""

    def __init__(self, lit: LitISNet) -> None:
        super().__init__()
        self.net, self.criterion = lit.net, lit.criterion

    def forward(self, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        return self.criterion(self.net.explain(images), labels, masks).total


def by_hand(case: Case, rank: int, device: torch.device, shard: bool) -> dict[str, Any]:
    """Return the gradients of a step without Lightning, of weights that are shared out or not."""
    lit = case.lit()
    step: nn.Module = Step(lit).to(device)
    if shard:
        fully_shard(step, mesh=init_device_mesh(device.type, (PROCESSES,)))
    else:
        step = DistributedDataParallel(step, [device] if device.type == "cuda" else None)
    step(*(t[rank::PROCESSES].to(device) for t in case.data().tensors)).backward()
    grads = {name: parameter.grad for name, parameter in lit.net.named_parameters()}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in grads.items()}
    return {"gradients": {name: g.cpu() for name, g in whole.items()}}


def epochs(last: int, out: Path, **options: Any) -> tuple[int, dict[str, Tensor]]:
    """Train until an epoch, from where the last run stopped; each process draws for itself."""
    model = nn.Sequential(*network().eval(), nn.Dropout(0.5).train())
    net = ISNet(model, "stochastic", deep_supervision=False)
    lit = LitISNet(net, ISNetLoss(cut_low=0.1), learning_rate=0.1, **AS_THEY_ARE)
    trainer = lightning.Trainer(
        max_epochs=last,
        logger=False,
        callbacks=[ModelCheckpoint(out, save_last=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    torch.manual_seed(trainer.global_rank)
    checkpoint = out / "last.ckpt"
    checkpoint = str(checkpoint) if checkpoint.exists() else None
    trainer.fit(lit, DataLoader(Case().data(), 3), ckpt_path=checkpoint, weights_only=True)
    return trainer.global_rank, {k: v.cpu() for k, v in lit.net.state_dict().items()}


def main(out: Path, accelerator: str) -> None:
    on_cpu = accelerator == "cpu"
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    options: Any = {"strategy": "ddp", "accelerator": accelerator, "devices": PROCESSES}
    for name, case in CASES.items():
        with cpu_allowed() if on_cpu else nullcontext():
            rank, found = fit(case, sync_batchnorm=case.synchronised, **options)
        torch.save(found, out / f"{name} {rank}.pt")
    device = torch.device("cpu") if on_cpu else torch.device("cuda", rank)
    for name, shard in product(BY_HAND, (False, True)):
        found = by_hand(CASES[name], rank, device, shard)
        torch.save(found, out / f"{name}, {SHARDED[shard]} {rank}.pt")
    for name, stops in {"whole": [3], "resumed": [1, 3]}.items():
        for stop in stops:
            _, weights = epochs(stop, out / name, **options)
        torch.save(weights, out / f"{name} {rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
