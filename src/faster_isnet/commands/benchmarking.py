"""Run ``faster-isnet benchmark``: time training steps and explanations on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faster_isnet.benchmark import BenchmarkSettings, run_benchmark
from faster_isnet.commands.arguments import CommandParser, command_parser, parameters


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    settings = BenchmarkSettings(**parameters(BenchmarkSettings, options))
    run_benchmark(settings.quick() if options.quick else settings, options.out)
    print((options.out / "benchmark.md").read_text())


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "benchmark",
        "Time training steps beside the plain one, and explanations beside Gradient × Input and "
        "other packages (pip install 'faster-isnet[bench]'); write tables and plots.",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="folder of the results")
    parser.add_argument(
        "--quick", type=bool, default=False, help="a minute, to see that all of it works"
    )
    parser.add_parameters(BenchmarkSettings)
    return parser
