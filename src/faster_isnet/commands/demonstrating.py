"""``faster-isnet demo``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from faster_isnet.data import SOURCES
from faster_isnet.demo import DemoMetrics, DemoSettings, run_demo
from faster_isnet.methods.isnet.cuts import AUTO
from faster_isnet.methods.isnet.network import VARIANTS


def run(words: Sequence[str]) -> None:
    """Run the command, of which ``words`` are the name and the arguments."""
    options = parser().parse_args(list(words[1:]))
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
    metrics = run_demo(settings.quick() if options.quick else settings, options.out)
    print(_table(metrics))
    print(f"\nThe report: {(options.out / 'report.html').resolve()}")


def parser() -> ArgumentParser:
    """Return the command's parser."""
    defaults = DemoSettings()
    parser = ArgumentParser(
        prog="faster-isnet demo",
        description="Train an ordinary classifier and an ISNet on handwritten digits with a "
        "planted background bias, and write a report of what each of them learnt.",
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
        help="explain at every N-th step only: faster, but the mark is learnt in between "
        "(default: 1)",
    )
    add("--seed", type=int, default=defaults.seed, help="of weights, data and order (default: 0)")
    add(
        "--source",
        default=defaults.source,
        help=f"of the digits: {' or '.join(SOURCES)} (the latter is downloaded)",
    )
    return parser


def _number_or_auto(text: str) -> float | str:
    return text if text == AUTO else float(text)


def _table(metrics: DemoMetrics) -> str:
    columns = ("biased", "unbiased", "deceiving", "background_share")
    lines = [f"{'':10}" + "".join(f"{name:>18}" for name in columns)]
    for model, scores in metrics.models.items():
        cells = (f"{getattr(scores, name):>17.1%} " for name in columns)
        lines.append(f"{model:10}" + "".join(cells).rstrip())
    return "\n".join(lines)
