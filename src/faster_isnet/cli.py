"""The command ``faster-isnet``."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from faster_isnet import __version__
from faster_isnet.benchmark import SUITES, BenchmarkSettings, run_benchmark
from faster_isnet.cuts import AUTO
from faster_isnet.data import SOURCES
from faster_isnet.demo import DemoSettings, run_demo
from faster_isnet.isnet import VARIANTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    arguments
        The words after ``faster-isnet``; those of the command line by default.
    """
    options = _parser().parse_args(arguments)
    _quieten()
    commands = {"demo": _demo, "benchmark": _benchmark}
    return commands[options.subcommand](options[options.subcommand])


def _quieten() -> None:
    """Let what this command says be seen among what the libraries below it say."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("faster_isnet").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning", category=Warning)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="faster-isnet",
        description="Train classifiers that do not read the background.",
        version=__version__,
    )
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("demo", _demo_parser(), help="see it work on digits, in six minutes")
    commands.add_subcommand(
        "benchmark", _benchmark_parser(), help="what training steps and explanations cost here"
    )
    return parser


def _demo_parser() -> ArgumentParser:
    defaults = DemoSettings()
    parser = ArgumentParser(
        description="Train an ordinary classifier and an ISNet on handwritten digits with a "
        "planted background bias, and write a report of what each of them learnt."
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo"), help="folder for the report (default: demo)")
    add("--quick", action="store_true", help="train for a minute only, for a less clear result")
    add(
        "--backbone",
        default=defaults.backbone,
        help=f"{defaults.backbone} or the name of a torchvision classifier",
    )
    add("--variant", default=defaults.variant, help=f"of the ISNet: {', '.join(VARIANTS)}")
    add(
        "--no-deep-supervision",
        action="store_true",
        help="supervise the image's heatmap alone, and no hidden layers",
    )
    add(
        "--cut-low",
        type=_number_or_auto,
        help="C1 of the heatmap loss, or auto to calibrate C1 and C2 (default: 0.2 for selective, "
        "auto for the other variants)",
    )
    add(
        "--supervised-part",
        type=float,
        default=defaults.supervised_part,
        help="share of each batch that is explained: less is faster and weaker (default: 1)",
    )
    add(
        "--supervise-every",
        type=int,
        default=defaults.supervise_every,
        help="explain at every N-th step only: faster and weaker (default: 1)",
    )
    add("--seed", type=int, default=defaults.seed, help="of weights, data and order (default: 0)")
    add(
        "--source",
        default=defaults.source,
        help=f"of the digits: {' or '.join(SOURCES)} (the latter is downloaded)",
    )
    return parser


def _benchmark_parser() -> ArgumentParser:
    defaults = BenchmarkSettings()
    parser = ArgumentParser(
        description="Time training steps beside the plain one, and explanations beside Gradient × "
        "Input and other packages (pip install 'faster-isnet[bench]'); write tables and plots."
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


def _benchmark(options: Namespace) -> int:
    try:
        settings = BenchmarkSettings(
            only=options.only,
            architectures=options.architectures,
            rounds=options.rounds,
            deep_supervision=options.deep_supervision,
            device=options.device,
            seed=options.seed,
        )
    except (TypeError, ValueError) as error:
        print(f"faster-isnet benchmark: {error}", file=sys.stderr)
        return 2
    run_benchmark(settings.quick() if options.quick else settings, options.out)
    print((options.out / "benchmark.md").read_text())
    return 0


def _number_or_auto(text: str) -> float | str:
    return text if text == AUTO else float(text)


def _demo(options: Namespace) -> int:
    try:
        settings = DemoSettings(
            source=options.source,
            backbone=options.backbone,
            variant=options.variant,
            deep_supervision=not options.no_deep_supervision,
            cut_low=options.cut_low,
            supervised_part=options.supervised_part,
            supervise_every=options.supervise_every,
            seed=options.seed,
        )
    except (TypeError, ValueError) as error:
        print(f"faster-isnet demo: {error}", file=sys.stderr)
        return 2
    metrics = run_demo(settings.quick() if options.quick else settings, options.out)
    print(_table(metrics))
    print(f"\nThe report: {(options.out / 'report.html').resolve()}")
    return 0


def _table(metrics: dict[str, dict[str, float]]) -> str:
    columns = ("biased", "unbiased", "deceiving", "background_share")
    lines = [f"{'':10}" + "".join(f"{name:>18}" for name in columns)]
    for model in ("standard", "isnet"):
        cells = (f"{metrics[model][name]:>17.1%} " for name in columns)
        lines.append(f"{model:10}" + "".join(cells).rstrip())
    return "\n".join(lines)
