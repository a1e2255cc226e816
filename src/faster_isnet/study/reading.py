"""Read the settings of a study from YAML.

Options of ``faster-isnet fit`` are taken as they are, and checked where a run's configuration is
parsed; jsonargparse, which reads the options of other commands, would construct the classes that
they name.
"""

from __future__ import annotations

import re

import yaml

from faster_isnet.common.construction import construct
from faster_isnet.study.settings import StudySettings


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Read ``1e-3`` as a number, as YAML 1.2 has it, and the options of other commands."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def settings_of(text: str) -> StudySettings:
    """Return the settings that a YAML text has.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value is wrong; the message has its path.

    Examples
    --------
    >>> settings_of("methods: {plain: {method: standard}}").methods["plain"].method
    'standard'
    >>> settings_of("methods: {plain: {methd: standard}}")
    Traceback (most recent call last):
    ...
    ValueError: unknown key 'methd' in methods.plain; did you mean 'method'?
    """
    content = yaml.load(text, _Loader)  # a SafeLoader
    return construct(StudySettings, {} if content is None else content, what="a study")
