"""Run ``faster-isnet study``: train methods with several seeds and put them into one table."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from faster_isnet.commands import study_run
from faster_isnet.commands.arguments import CommandParser, command_parser, parameters
from faster_isnet.commands.configuration_files import check_configuration
from faster_isnet.commands.training import RunCLI
from faster_isnet.common.checks import check_choice, check_range
from faster_isnet.common.files import check_file
from faster_isnet.common.locks import locked
from faster_isnet.study.launch import Jobs, Launcher, Processes
from faster_isnet.study.plan import Entry, entries
from faster_isnet.study.reading import settings_of
from faster_isnet.study.report import write_report
from faster_isnet.study.run_study import EntryOutcome, run_study
from faster_isnet.study.settings import StudySettings

CLUSTERS = ("local", "slurm")
JOBS = "jobs"


@dataclass(frozen=True)
class Execution:
    """How runs are executed.

    Parameters
    ----------
    processes
        Runs at a time on this machine. Times of training are comparable only if the machine has a
        core for each thread.
    threads
        Of each run; ``None`` to share the machine's cores equally.
    submitit
        Run each as a job of submitit instead (``pip install faster-isnet[cluster]``):
        ``"slurm"``, or ``"local"`` for processes on this machine.
    submitit_options
        Of the jobs: ``timeout_min`` (default: a day), ``mem_gb``, ``gpus_per_node``,
        ``slurm_partition``, … of ``submitit.AutoExecutor.update_parameters``.

    Raises
    ------
    ValueError
        If a number is out of range, or the cluster unknown.
    """

    processes: int = 1
    threads: int | None = None
    submitit: str | None = None
    submitit_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check numbers and names."""
        check_range("processes", self.processes, 1)
        if self.threads is not None:
            check_range("threads", self.threads, 1)
        if self.submitit is not None:
            check_choice("submitit", self.submitit, CLUSTERS)
        elif self.submitit_options:
            raise ValueError("submitit_options are of jobs; give --submitit slurm as well")

    def launcher(self, out: Path) -> Launcher:
        """Return what starts the processes."""
        threads = self.threads or max(1, (os.cpu_count() or 1) // self.processes)
        if self.submitit is not None:
            command = [sys.executable, "-m", study_run.__name__]
            return Jobs(command, threads, out / JOBS, self.submitit, self.submitit_options)
        return Processes(study_run.main, threads, self.processes)


def run(arguments: Sequence[str]) -> None:
    """Run the command, of which ``arguments`` are the name and what follows it."""
    options = parser().parse_args(list(arguments[1:]))
    settings = read_study(options.study)
    planned = entries(settings, options.out)
    if options.report_only:
        _report(settings, run_study(planned, None), options.out)
        return
    launcher = Execution(**parameters(Execution, options)).launcher(options.out)
    message = (
        f"another study runs in {str(options.out)!r}; wait for its end, name another folder "
        "(--out), or see what is finished: --report_only"
    )
    with locked(options.out, message):
        for entry in planned:
            check_entry(entry)
        outcomes = run_study(planned, launcher, options.overwrite)
    _report(settings, outcomes, options.out)
    failed = sum(len(outcome.failures) for outcome in outcomes)
    if failed:
        raise ValueError(
            f"{failed} of the runs failed, named in the report; run the study again to go on with "
            "them alone"
        )


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = command_parser(
        "study",
        "Train methods on data sets with several seeds, with options that are searched on "
        "validation images, and write one page of what they are worth and cost. What is finished "
        "is not trained again, so that a study goes on after a stop, and can be extended.",
    )
    add = parser.add_argument
    add("study", type=Path, help="a YAML file of data, methods and seeds; docs/commands.md")
    add("--out", type=Path, default=Path("study"), help="folder (default: study)")
    add(
        "--overwrite",
        type=bool,
        default=False,
        help="train runs again that were trained with other settings",
    )
    add(
        "--report_only",
        type=bool,
        default=False,
        help="write the page of what is finished, while the study runs or after it",
    )
    parser.add_parameters(Execution)
    return parser


def read_study(path: Path) -> StudySettings:
    """Read the YAML file of a study.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no YAML, an option is unknown, or a value is wrong.
    """
    check_file(path, "study")
    check_configuration(path)
    try:
        return settings_of(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def check_entry(entry: Entry) -> None:
    """Check that ``faster-isnet fit`` takes the configuration of a method on a data set.

    Of what is searched, the first choice or the lower end is checked.

    Raises
    ------
    ValueError
        If an option is unknown or a value has the wrong type.
    """
    searched = {
        path: values[0]
        if isinstance(values, list)
        else int(values.low)
        if values.whole
        else values.low
        for path, values in entry.space.items()
    }
    options = searched if entry.settings.search.trials else {}
    config = entry.run(entry.settings.seeds[0], options).training
    told = StringIO()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        try:
            with redirect_stderr(told):
                _ParsedRun(["fit", "--config", str(path), "--out", str(entry.folder)])
        except (SystemExit, ValueError) as error:
            reason = told.getvalue().strip() or str(error)
            raise ValueError(f"{entry.method} on {entry.data}: {reason}") from error


class _ParsedRun(RunCLI):
    """Parse the arguments of a run, and do nothing with them."""

    def instantiate_classes(self) -> None:
        """Construct nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def _report(settings: StudySettings, outcomes: Sequence[EntryOutcome], out: Path) -> None:
    page = write_report(out, settings, outcomes)
    print(page.text)
    print(f"\nThe report: {page.html.resolve()}")
