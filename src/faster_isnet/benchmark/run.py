"""Run the benchmark and write its results to files."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from faster_isnet.benchmark.cost_tables import report
from faster_isnet.benchmark.cost_targets import matching_targets
from faster_isnet.benchmark.measurements import Measurement, measure_group
from faster_isnet.benchmark.plots import figures
from faster_isnet.benchmark.settings import BenchmarkSettings
from faster_isnet.benchmark.suites import case_groups
from faster_isnet.common.environment import machine as base_environment
from faster_isnet.common.files import write_atomically
from faster_isnet.plotting.heatmaps import png

log = logging.getLogger(__name__)


def run_benchmark(settings: BenchmarkSettings, out: Path) -> dict[str, Any]:
    """Measure the suites in the settings, and write the results.

    Parameters
    ----------
    settings
        What to measure, and how often.
    out
        The folder for ``benchmark.json``, ``benchmark.md`` and a plot of each suite. They are
        written after each suite, so that an interrupted run keeps the suites it has finished.

    Returns
    -------
    dict
        The content of ``benchmark.json``: ``machine``, ``settings``, ``measurements`` (the
        attributes of :class:`~faster_isnet.benchmark.measurements.Measurement`) and ``targets``.
    """
    found = {"machine": benchmark_environment(settings.device), "settings": asdict(settings)}
    results: list[Measurement] = []
    content: dict[str, Any] = {}
    for suite in dict.fromkeys(settings.only):
        for group in case_groups(suite, settings):
            for case in group:
                log.info("Measuring %s", case)
            results += measure_group(group, settings)
        content = {**found, **_as_json(results)}
        write(content, results, out)
    return content


def write(content: dict[str, Any], results: Sequence[Measurement], out: Path) -> None:
    """Write the JSON file, the tables and the plots of the measurements so far."""
    write_atomically(out / "benchmark.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(out / "benchmark.md", report(content["machine"], results).encode())
    for name, figure in figures(results).items():
        write_atomically(out / f"{name}.png", png(figure))


def _as_json(results: Sequence[Measurement]) -> dict[str, Any]:
    targets = [
        {
            **asdict(target),
            "batch": result.batch,
            "measured": None if ratio is None else asdict(ratio),
            "met": None if ratio is None else target.is_met(ratio.median),
        }
        for target, result in matching_targets(results)
        for ratio in [result.ratios.get(target.reference)]
    ]
    return {"measurements": [result.as_json() for result in results], "targets": targets}


def benchmark_environment(device: str = "cpu") -> dict[str, str | int | float]:
    """Return versions and hardware, and as ``load`` the load average of the last minute."""
    found: dict[str, str | int | float] = {
        **base_environment(),
        "processor": processor(),
        "cores": usable_cores(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def processor() -> str:
    """Return the processor's name; on Linux ``platform`` lacks it, so read ``/proc/cpuinfo``."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
