"""``faster-isnet calibrate``: C1 and C2, from a plain classifier that has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning

from faster_isnet.commands.run_folder import CALIBRATION
from faster_isnet.commands.training import RunCLI, users_errors
from faster_isnet.data import ImageData
from faster_isnet.methods.isnet.calibration import calibrate
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.training.image_classifier import ImageClassifier


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    with users_errors():
        _CalibrationCLI(words, _Calibrator)


class _Calibrator(lightning.Trainer):
    """A trainer that can calibrate, too."""

    def calibrate(
        self,
        model: ImageClassifier,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Measure C1 and C2 on a plain classifier, and write them into its run's folder.

        Args:
            model: An ISNet, whose variant, rules and layers are measured.
            datamodule: Whose training images are looked at.
            ckpt_path: Of the plain classifier (default: the run's best).
            weights_only: Not used: no more than tensors and plain values is ever read.
        """
        assert ckpt_path is not None  # the command line sees to it
        if not isinstance(model.net, ISNet):
            raise ValueError(
                f"only ISNets have C1 and C2, not method {type(model.method).__name__}; give "
                "--method isnet, with the variant and layers to calibrate for"
            )
        trained = ImageClassifier.load_deployed(ckpt_path)
        model.deployed.load_state_dict(trained.deployed.state_dict())
        datamodule.setup()
        found = calibrate(model.net.to(self.strategy.root_device), datamodule.train_dataloader())
        path = Path(self.default_root_dir) / CALIBRATION
        found.save(path)
        print(f"{found}\n\nWritten to {path.resolve()}")


class _CalibrationCLI(RunCLI):
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one command."""
        return {"calibrate": {"model", "datamodule"}}
