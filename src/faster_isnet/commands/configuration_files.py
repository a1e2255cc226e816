"""Check the YAML files of options before they are parsed, so that errors name file and line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

_OPTIONS = ("--config", "-c")


def configuration_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files that ``--config`` names among arguments.

    Examples
    --------
    >>> [str(path) for path in configuration_files(["--config", "a.yaml", "--config=b.yaml"])]
    ['a.yaml', 'b.yaml']
    """
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name in _OPTIONS:
            found.append(Path(value if equals else following))
    return found


def check_configuration(path: Path) -> None:
    """Check that a file holds options by name, each once; it may be empty.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no YAML, no mapping, or has a key twice; the message names file and line.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (UnicodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} is no YAML ({reason}); indent with spaces, and save it as UTF-8"
        ) from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(
            f"{str(path)!r} must hold options as 'name: value', got {_kind(root)}; "
            "--print_config writes an example"
        )
    _check_node(root, path)


def _kind(node: yaml.Node) -> str:
    return f"the text {node.value!r}" if isinstance(node, yaml.ScalarNode) else "a list"


def _check_node(node: yaml.Node, path: Path) -> None:
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        line = node.start_mark.line + 1
        raise ValueError(
            f"line {line} of {str(path)!r} has the tag {node.tag!r}; write plain values, since "
            "nothing is constructed from tags"
        )
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_node(each, path)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise ValueError(
                        f"line {key.start_mark.line + 1} of {str(path)!r} has {key.value!r} a "
                        "second time; remove one"
                    )
                keys.add(key.value)
            _check_node(value, path)
