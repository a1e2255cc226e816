"""Support imports by the module names of version 0.1, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "faster_isnet.data.module": "faster_isnet.data.image_data",
    "faster_isnet.calibration": "faster_isnet.methods.isnet.calibration",
    "faster_isnet.checkpoints": "faster_isnet.models.weight_files",
    "faster_isnet.checks": "faster_isnet.common.checks",
    "faster_isnet.cuts": "faster_isnet.methods.isnet.cuts",
    "faster_isnet.data.checking": "faster_isnet.data.dataset_report",
    "faster_isnet.data.tables": "faster_isnet.data.sample_tables",
    "faster_isnet.explain": "faster_isnet.explaining.explainer",
    "faster_isnet.explanation_files": "faster_isnet.explaining.heatmap_files",
    "faster_isnet.export": "faster_isnet.training.export",
    "faster_isnet.figures": "faster_isnet.plotting.heatmaps",
    "faster_isnet.image_classifier": "faster_isnet.training.image_classifier",
    "faster_isnet.isnet": "faster_isnet.methods.isnet.network",
    "faster_isnet.lightning_module": "faster_isnet.training.lit_isnet",
    "faster_isnet.loss": "faster_isnet.methods.isnet.loss",
    "faster_isnet.quantities": "faster_isnet.explaining.targets",
    "faster_isnet.testing": "faster_isnet.evaluation.evaluator",
}
"""New name of each public module that moved, by its old name."""


class MovedModules(MetaPathFinder, Loader):
    """Find modules by their old names.

    Parameters
    ----------
    moved
        The new name of each old one.
    """

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a moved module, ``None`` for all other modules."""
        return ModuleSpec(fullname, self) if fullname in self.moved else None

    def exec_module(self, module: ModuleType) -> None:
        """Forward attributes of the old module to the new one."""
        new = self.moved[module.__name__]
        warnings.warn(
            f"{module.__name__} is called {new} now; the old name will go",
            DeprecationWarning,
            stacklevel=2,  # warnings skips frames of importlib
        )
        module.__getattr__ = partial(getattr, import_module(new))  # type: ignore[method-assign]
