"""``faster-isnet benchmark``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from faster_isnet.benchmark import SUITES, BenchmarkSettings, run_benchmark


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    options = parser().parse_args(list(words[1:]))
    settings = BenchmarkSettings(
        only=options.only,
        architectures=options.architectures,
        rounds=options.rounds,
        deep_supervision=options.deep_supervision,
        device=options.device,
        seed=options.seed,
    )
    run_benchmark(settings.quick() if options.quick else settings, options.out)
    print((options.out / "benchmark.md").read_text())


def parser() -> ArgumentParser:
    """Return the command's parser."""
    defaults = BenchmarkSettings()
    parser = ArgumentParser(
        prog="faster-isnet benchmark",
        description="Time training steps beside the plain one, and explanations beside Gradient × "
        "Input and other packages (pip install 'faster-isnet[bench]'); write tables and plots.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("benchmark"), help="folder (default: benchmark)")
    add("--quick", action="store_true", help="a minute, to see that all of it works")
    add("--only", nargs="+", default=list(defaults.only), help=f"of: {', '.join(SUITES)}")
    add(
        "--architectures",
        nargs="+",
        default=list(defaults.architectures),
        help="names of torchvision classifiers, or convnet; the sweeps take the first",
    )
    add("--rounds", type=int, default=defaults.rounds, help="how often each is timed (default: 20)")
    add("--deep-supervision", action="store_true", help="supervise the published hidden layers too")
    add("--device", default=defaults.device, help="where: cpu, cuda, … (default: cpu)")
    add("--seed", type=int, default=defaults.seed, help="of weights, images and order (default: 0)")
    return parser
