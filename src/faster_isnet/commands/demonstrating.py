"""Run ``faster-isnet demo``: train two classifiers on digits and report what they learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.demo import DemoMetrics, DemoSettings, run_demo


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    settings = DemoSettings(**parameters(DemoSettings, options))
    metrics = run_demo(settings.quick() if options.quick else settings, options.out)
    print(_table(metrics))
    print(f"\nThe report: {(options.out / 'report.html').resolve()}")


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "demo",
        "Train a standard classifier and an ISNet on handwritten digits with a planted background "
        "bias, and write a report of what each of them learnt.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the report")
    parser.add_argument(
        "--quick",
        type=bool,
        default=False,
        help="train for a minute only, for a less clear result",
    )
    parser.add_parameters(DemoSettings)
    return parser


def _table(metrics: DemoMetrics) -> str:
    columns = ("biased", "unbiased", "deceiving", "background_share")
    lines = [f"{'':10}" + "".join(f"{name:>18}" for name in columns)]
    for model, scores in metrics.models.items():
        cells = (f"{getattr(scores, name):>17.1%} " for name in columns)
        lines.append(f"{model:10}" + "".join(cells).rstrip())
    return "\n".join(lines)
