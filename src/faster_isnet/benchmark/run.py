"""A run of the benchmark, from settings to files."""

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

from faster_isnet.benchmark.cases import groups
from faster_isnet.benchmark.measuring import measure
from faster_isnet.benchmark.plots import figures
from faster_isnet.benchmark.rows import Row
from faster_isnet.benchmark.settings import BenchmarkSettings
from faster_isnet.benchmark.tables import report
from faster_isnet.benchmark.targets import judged
from faster_isnet.common.environment import machine as any_machine
from faster_isnet.common.files import write_atomically
from faster_isnet.plotting.heatmaps import png

log = logging.getLogger(__name__)


def run_benchmark(settings: BenchmarkSettings, out: Path) -> dict[str, Any]:
    """Measure what the settings name, and write what came of it.

    Parameters
    ----------
    settings
        What to do.
    out
        The folder for ``benchmark.json``, ``benchmark.md`` and a plot of each suite. They are
        written anew after each suite, so that a run that is stopped leaves those it finished.

    Returns
    -------
    dict
        The content of ``benchmark.json``: ``machine``, ``settings``, ``measurements`` (the
        attributes of :class:`~faster_isnet.benchmark.rows.Row`) and ``targets``.
    """
    found = {"machine": machine(settings.device), "settings": asdict(settings)}
    rows: list[Row] = []
    content: dict[str, Any] = {}
    for suite in dict.fromkeys(settings.only):
        for group in groups(suite, settings):
            for case in group:
                log.info("Measuring %s", case)
            rows += measure(group, settings)
        content = {**found, **_as_json(rows)}
        write(content, rows, out)
    return content


def write(content: dict[str, Any], rows: Sequence[Row], out: Path) -> None:
    """Write the JSON file, the tables and the plots of what was measured so far."""
    write_atomically(out / "benchmark.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(out / "benchmark.md", report(content["machine"], rows).encode())
    for name, figure in figures(rows).items():
        write_atomically(out / f"{name}.png", png(figure))


def _as_json(rows: Sequence[Row]) -> dict[str, Any]:
    targets = [
        {
            **asdict(target),
            "batch": row.batch,
            "measured": None if ratio is None else asdict(ratio),
            "met": None if ratio is None else target.is_met(ratio.median),
        }
        for target, row in judged(rows)
        for ratio in [row.ratios.get(target.reference)]
    ]
    return {"measurements": [row.as_json() for row in rows], "targets": targets}


def machine(device: str = "cpu") -> dict[str, str | int | float]:
    """Return what figures depend on beside the settings; ``load`` is that of the last minute."""
    found: dict[str, str | int | float] = {
        **any_machine(),
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
    """Return the processor's name: Linux keeps it where Python does not look."""
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
