"""A small training run, as a program: ``resumable_run.py OUT [--kill] [--resume]``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import ISNet, ISNetLoss, LitISNet


class KillInMidEpoch(Callback):
    """Dies as a machine dies, without a chance to tidy up."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
        if trainer.current_epoch == 2 and args[-1] == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(out: Path, kill: bool, resume: bool) -> None:
    lightning.seed_everything(3)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    masks = torch.zeros(40, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    data = TensorDataset(images, labels, masks)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(216, 4)),
    )
    criterion = ISNetLoss(0.5, cut_low=0.1)
    lit = LitISNet(
        ISNet(model, "stochastic"),
        criterion,
        learning_rate=0.05,
        milestones=[3],
        heatmap_weight_schedule={0: 0.2, 4: 0.6},
    )
    trainer = lightning.Trainer(
        max_epochs=5,
        callbacks=[ModelCheckpoint(out, save_last=True), *([KillInMidEpoch()] if kill else [])],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = {"iid": DataLoader(data, 16), "ood": DataLoader(data, 16, shuffle=True)}
    checkpoint = str(out / "last.ckpt") if resume else None
    trainer.fit(lit, DataLoader(data, 8, shuffle=True), loaders, ckpt_path=checkpoint)
    torch.save({**model.state_dict(), "P": criterion.heatmap_weight}, out / "final.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--kill" in sys.argv, "--resume" in sys.argv)
