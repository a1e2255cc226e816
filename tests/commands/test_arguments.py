"""Every command has one dialect of options and of YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from faster_isnet.commands import (
    benchmarking,
    comparing,
    demonstrating,
    explaining,
    exporting,
    segmenting,
    testing,
)
from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.commands.help import annotation_of
from faster_isnet.commands.spelling import Kind, option_of
from faster_isnet.data import ImageData

Values = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A command: its parser, the subcommand if any, and what must be given."""

    make: Callable[[], CommandParser]
    required: Values
    subcommand: str | None = None

    @property
    def start(self) -> list[str]:
        return [self.subcommand] if self.subcommand else []

    @property
    def positional(self) -> list[str]:
        return [
            word
            for value in self.required.values()
            for word in (value if isinstance(value, list) else [value])
        ]

    def parser(self) -> CommandParser:
        parser = self.make()
        if self.subcommand is None:
            return parser
        choices = next(each.choices for each in parser._actions if each.choices is not None)
        return choices[self.subcommand]

    def parse(self, *arguments: str) -> Values:
        options = self.make().parse_args([*self.start, *arguments])
        return settings(options[self.subcommand] if self.subcommand else options)

    def options(self) -> Values:
        """Return another value than the default for every option, by its key."""
        actions = self.parser()._actions
        return {
            each.dest: another(annotation_of(each), each.default)
            for each in actions
            if each.option_strings and annotation_of(each) is not None
        }


COMMANDS = {
    "demo": Command(demonstrating.parser, {}),
    "test": Command(testing.parser, {"run": "run"}),
    "compare": Command(comparing.parser, {"runs": ["one", "two"]}),
    "explain": Command(explaining.parser, {"model": "convnet", "images": ["a.png", "b.png"]}),
    "export": Command(exporting.parser, {"checkpoint": "best.ckpt"}),
    "segment fit": Command(segmenting.parser, {"source": "images"}, "fit"),
    "segment predict": Command(
        segmenting.parser, {"segmenter": "segmenter", "images": ["a.png", "b.png"]}, "predict"
    ),
    "benchmark": Command(benchmarking.parser, {}),
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


def another(annotation: Any, default: Any) -> Any:
    kind, texts = option_of(annotation)
    if kind is Kind.FLAG:
        return not default
    if kind is Kind.LIST:
        if texts:
            return ["one", "two"]
        return [3.0, 5.0] if "float" in str(annotation) else [3, 5]
    if kind is Kind.MAPPING:
        return {"label": "a-column"}
    if "int" in str(annotation) and "float" not in str(annotation):
        return (default or 0) + 3
    return 0.25 if "float" in str(annotation) else "else"


def words(value: Any) -> list[str]:
    """Return a value as it is written on a command line."""
    if isinstance(value, list):
        return [str(each) for each in value]
    return [yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()]


def settings(options: Namespace) -> Values:
    """Return the options by their keys, without the files that they were read from."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in options.items()
        if key != "config"
    }


def nested(options: Values) -> Values:
    tree: Values = {}
    for key, value in options.items():
        *groups, leaf = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def with_dashes(tree: Values) -> Values:
    def respell(name: str, value: Any) -> Any:
        return with_dashes(value) if isinstance(value, dict) and name != "fields" else value

    return {name.replace("_", "-"): respell(name, value) for name, value in tree.items()}


@every_command
def test_both_spellings_and_yaml_give_the_same_settings(command: Command, tmp_path: Path) -> None:
    options = command.options()
    spelled = [[f"--{name}", *words(value)] for name, value in options.items()]
    with_underscores = [word for option in spelled for word in option]
    dashed = [w for name, *rest in spelled for w in (name.replace("_", "-"), *rest)]
    joined = [
        f"{name}={rest[0]}" if len(rest) == 1 else f"{name}=[{', '.join(rest)}]"
        for name, *rest in spelled
    ]
    expected = command.parse(*command.positional, *with_underscores)
    assert command.parse(*command.positional, *dashed) == expected
    assert command.parse(*command.positional, *joined) == expected
    default = command.parse(*command.positional)
    for name, value in options.items():  # nothing was parsed and forgotten
        assert str(expected[name]) == str(value) != str(default[name])
    for number, tree in enumerate((nested(options), with_dashes(nested(options)))):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(tree))
        assert command.parse(*command.positional, "--config", str(file)) == expected


@every_command
def test_what_is_printed_as_configuration_gives_the_same_settings(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [w for name, value in command.options().items() for w in (f"--{name}", *words(value))]
    for number, options in enumerate((given, [])):
        with pytest.raises(SystemExit) as stop:
            command.parse(*command.positional, *options, "--print-config")
        assert stop.value.code == 0
        file = tmp_path / f"{number}.yaml"
        file.write_text(capsys.readouterr().out)
        expected = command.parse(*command.positional, *options)
        assert command.parse("--config", str(file)) == expected
        assert set(yaml.safe_load(file.read_text())) >= set(command.required)


@every_command
def test_the_command_line_goes_before_yaml(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("out: from-yaml\n")
    config = ["--config", str(file)]
    assert str(command.parse(*command.positional, *config)["out"]) == "from-yaml"
    assert str(command.parse(*command.positional, *config, "--out", "given")["out"]) == "given"


@every_command
def test_the_help_lists_every_option_once_with_its_text_and_default(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.parse("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    lines = re.findall(r"^  -.*", text, re.MULTILINE)
    found = [name for line in lines for name in re.findall(r"--([a-z_.]+)", line.split("   ")[0])]
    options = [*command.options(), "config", "help", "print_config"]
    groups = {name.rpartition(".")[0] for name in options} - {""}
    parser = command.parser()
    strings = ((s, each.dest) for each in parser._actions for s in each.option_strings)
    former = [s[2:] for s, dest in strings if s.startswith("--") and s[2:].rstrip("+") != dest]
    assert sorted(found) == sorted([*options, *groups, *former])
    assert not re.search(r"``|:\w+:`|<class|default: null|default: (True|False|\()", text)
    for action in parser._actions:
        assert action.help, action.dest
    flat = re.sub(r"\s+", " ", text)
    for name, action in ((each.dest, each) for each in parser._actions):
        if annotation_of(action) is bool:
            assert f"--{name} [true|false]" in flat
            assert f"(type: bool, default: {str(action.default).lower()})" in flat


@every_command
def test_an_unknown_option_or_key_names_the_nearest(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--oout", "x"], "unknown option --oout; did you mean '--out'?"),
        (["--ou", "x"], "unknown option --ou; did you mean '--out'?"),
    ):
        with pytest.raises(SystemExit) as stop:
            command.parse(*command.positional, *arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    file = tmp_path / "mistyped.yaml"
    file.write_text("ouut: x\n")
    with pytest.raises(SystemExit):
        command.parse(*command.positional, "--config", str(file))
    assert "unknown key 'ouut'; did you mean 'out'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--skip-unreadable"], True),
        (["--skip_unreadable=true"], True),
        (["--skip-unreadable", "yes"], True),
        (["--skip-unreadable", "false"], False),
        (["--skip-unreadable", "--no-skip-unreadable"], False),
        (["--no_skip_unreadable"], False),
    ],
)
def test_what_is_on_or_off_needs_no_value(arguments: list[str], expected: bool) -> None:
    command = COMMANDS["explain"]
    for given in ([*arguments, *command.positional], [*command.positional, *arguments]):
        found = command.parse(*given)
        assert found["skip_unreadable"] is expected
        assert [str(path) for path in found["images"]] == command.required["images"]


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ImageData has no parameters \['sources'\]"):
        command_parser("test", "").add_parameters(ImageData, only=["root", "sources"])


def test_parameters_are_those_options_that_the_function_has() -> None:
    def function(root: str, masks: str, other: int = 0) -> None: ...

    options = command_parser("test", "")
    options.add_parameters(ImageData, only=["root", "masks", "seed"])
    found = options.parse_args(["--root=a", "--seed=3"])
    assert parameters(function, found) == {"root": "a", "masks": None}


class RunParser(CommandParser, LightningArgumentParser):
    """What a LightningCLI's parser is to be derived of."""


def test_lightnings_parser_takes_the_same_dialect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = RunParser()
    parser.add_argument("-c", "--config", action="config")
    parser.add_lightning_class_args(ImageData, "data")
    arguments = ["--data.batch-size", "3", "--data.balanced", "--data.no-skip-unreadable"]
    arguments += ["--data.test-sources.other-hospital", "x.csv", "--data.source", "y.csv"]
    found = parser.parse_args(arguments).data
    assert (found.batch_size, found.balanced, found.skip_unreadable) == (3, True, False)
    assert {name: str(path) for name, path in found.test_sources.items()} == {
        "other-hospital": "x.csv"
    }
    file = tmp_path / "data.yaml"
    file.write_text(
        "data:\n  batch-size: 3\n  balanced: true\n  source: y.csv\n"
        "  test-sources: {other-hospital: x.csv}\n"
    )
    assert parser.parse_args(["--config", str(file)]).data == found
    with pytest.raises(SystemExit):
        parser.parse_args([*arguments, "--data.batchsize", "3"])
    assert "did you mean '--data.batch_size'?" in capsys.readouterr().err
    help_texts = " ".join(parser.format_help().split())  # one that describes two parameters
    assert help_texts.count("Additional data for validation and for testing") == 2
