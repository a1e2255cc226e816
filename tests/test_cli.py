"""The command line, and the demo that it runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from faster_isnet import cli
from faster_isnet.benchmark import BenchmarkSettings
from faster_isnet.commands import benchmarking, demonstrating
from faster_isnet.data import BiasedDigitsData
from faster_isnet.demo import DemoMetrics, DemoSettings, ModelScores, run_demo
from faster_isnet.demo import run as demo

TINY = DemoSettings(standard_epochs=1, isnet_epochs=1, train_size=128)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], []):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)
    commands = [[name] for name in cli.COMMANDS if name != "segment"]
    segment = (["segment", each] for each in ("auto", "compare", "fit", "predict"))
    for arguments in (*commands, *segment):
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "--help"])
        assert stop.value.code == 0
        assert "--out" in capsys.readouterr().out


def test_the_help_of_fit_is_short_unless_all_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages = {}
    for option in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["fit", option])
        assert stop.value.code == 0
        pages[option] = capsys.readouterr().out
    short, whole = pages.values()
    assert len(short.splitlines()) < 0.6 * len(whole.splitlines())
    for option in ("--trainer.max_epochs", "--data.masks", "--method", "--checkpoint.monitor"):
        assert f" {option} " in short
    for option in ("--trainer.num_sanity_val_steps", "--checkpoint.save_weights_only"):
        assert f" {option} " not in short
        assert f" {option} " in whole
    assert "--help_all" in short
    assert not re.search(r"known\s+subclasses", short)


def test_an_error_is_a_sentence_unless_its_origin_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--backbone", "resnet19"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("faster-isnet demo: unknown backbone 'resnet19'")
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(ValueError, match="resnet19"):
        cli.main(arguments)


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["Explian", "--help"])
    assert stop.value.code == 2
    assert "unknown command 'Explian'; did you mean 'explain'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "resnet19"], "unknown backbone 'resnet19'; did you mean 'resnet1"),
        (["--variant", "selectve"], "unknown variant 'selectve'; did you mean 'selective'?"),
        (["--source", "cifar"], "unknown source 'cifar'"),
        (["--seed", "-1"], "seed must be a number in [0, "),
        (["--isnet-epochs", "0"], "isnet_epochs must be a number in [1, "),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["demo", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_options_reach_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}
    scores = ModelScores(1.0, 0.5, 0.25, background_share=0.125)

    def run(settings: DemoSettings, out: Path) -> DemoMetrics:
        seen.update(settings=settings, out=out)
        return DemoMetrics({"standard": scores, "isnet": scores}, {}, {})

    monkeypatch.setattr(demonstrating, "run_demo", run)
    options = [
        "--quick",
        "--backbone",
        "resnet18",
        "--variant",
        "original",
        "--standard-epochs",
        "9",
        "--seed",
        "7",
        "--source",
        "mnist",
    ]
    assert cli.main(["demo", "--out", str(tmp_path), *options]) == 0
    expected = DemoSettings("mnist", "resnet18", "original", 7, standard_epochs=9)
    assert seen["settings"] == expected.quick()
    assert seen["out"] == tmp_path
    printed = capsys.readouterr().out
    assert str(tmp_path / "report.html") in printed
    assert "12.5%" in printed


def test_benchmark_passes_its_options_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def run(settings: BenchmarkSettings, out: Path) -> None:
        seen.update(settings=settings)
        (out / "benchmark.md").write_text("a table")

    monkeypatch.setattr(benchmarking, "run_benchmark", run)
    options = ["--only", "step", "memory", "--architectures", "convnet", "--rounds", "5"]
    assert cli.main(["benchmark", "--out", str(tmp_path), *options, "--quick"]) == 0
    expected = BenchmarkSettings(["step", "memory"], ["convnet"], 5).quick()
    assert seen["settings"] == expected
    assert "a table" in capsys.readouterr().out
    assert cli.main(["benchmark", "--only", "stap"]) == 2
    assert "did you mean 'step'" in capsys.readouterr().err


@pytest.fixture
def few_test_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate the demo on few digits, which takes most of its time here."""
    few = {"test_size": 60, "val_size": 40}
    monkeypatch.setattr(demo, "BiasedDigitsData", partial(BiasedDigitsData, **few))


@pytest.mark.slow
@pytest.mark.usefixtures("few_test_digits")
@pytest.mark.parametrize("variant", ["stochastic", "logit-gradient-x-input"])
def test_the_demo_runs_with_another_variant(tmp_path: Path, variant: str) -> None:
    metrics = run_demo(replace(TINY, variant=variant), tmp_path)
    assert list(metrics.models) == ["standard", "isnet"]
    report = (tmp_path / "report.html").read_text()
    assert variant in report
    assert "isnet_epochs" in report


@pytest.mark.slow
@pytest.mark.usefixtures("few_test_digits")
def test_the_demo_writes_what_it_says_and_a_seed_repeats_it(tmp_path: Path) -> None:
    one, two = (run_demo(TINY, tmp_path / name) for name in ("one", "two"))
    assert replace(one, seconds={}) == replace(two, seconds={})
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert list(metrics) == ["standard", "isnet", "settings", "seconds"]
    for model in ("standard", "isnet"):
        assert set(metrics[model]) == {"biased", "unbiased", "deceiving", "background_share"}
        assert (tmp_path / "one" / model / "checkpoints" / "last.ckpt").stat().st_size
        assert (tmp_path / "one" / model / "csv" / "metrics.csv").stat().st_size
        assert list((tmp_path / "one" / model).glob("events.out.tfevents.*"))
    assert (tmp_path / "one" / "report.html").read_text().startswith("<!")
    assert (tmp_path / "one" / "overview.png").read_bytes().startswith(b"\x89PNG")
