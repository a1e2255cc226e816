"""Start the processes of runs: on this machine, or as jobs of a cluster."""

from __future__ import annotations

import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from faster_isnet.study.records import LOG

_PATIENCE = 60.0  # seconds that a process has to end, once it is told to
_MOST_JOBS = 256  # that wait or run on a cluster at once
_ONE_DAY = 24 * 60  # minutes


class Launcher(ABC):
    """Start a process for each run, and end them all when the study is stopped.

    Parameters
    ----------
    command
        The program and its arguments; the run's folder is put behind them.
    threads
        Of each process.
    at_once
        How many may run at the same time.
    """

    def __init__(self, command: Sequence[str], threads: int, at_once: int) -> None:
        self._command, self._threads = list(command), threads
        self._pool = ThreadPoolExecutor(at_once)
        self._stopped = threading.Event()

    def submit(self, folder: Path) -> Future[None]:
        """Start the process of a run as soon as there is room; it is done when that has ended.

        The future raises ``CancelledError`` if the study was stopped before the process had ended.
        """
        return self._pool.submit(self._run_unless_stopped, folder)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for all processes, or end them after an error."""
        if error is not None:
            self.stop()
        self._pool.shutdown(cancel_futures=error is not None)

    def stop(self) -> None:
        """Start no more processes, and end those that run."""
        self._stopped.set()
        self._end_all()

    def _run_unless_stopped(self, folder: Path) -> None:
        if not self._stopped.is_set():
            self._run([*self._command, str(folder)], folder)
        if self._stopped.is_set():
            raise CancelledError

    @abstractmethod
    def _run(self, command: Sequence[str], folder: Path) -> None:
        """Run a command to its end."""

    @abstractmethod
    def _end_all(self) -> None:
        """End all that run."""


class Processes(Launcher):
    """Run several processes on this machine.

    A process ends when the study does, however that ends: it reads its standard input, which the
    study holds open, to the end (``--while-stdin``).

    Parameters
    ----------
    command, threads, at_once
        As in :class:`Launcher`.
    """

    def __init__(self, command: Sequence[str], threads: int, at_once: int) -> None:
        super().__init__([*command, "--while-stdin"], threads, at_once)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def _run(self, command: Sequence[str], folder: Path) -> None:
        with (folder / LOG).open("ab") as log:
            with self._lock:
                if self._stopped.is_set():
                    return
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(self._threads),
                    start_new_session=True,  # Ctrl-C reaches the study alone, which ends them
                )
                self._running.add(process)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        with self._lock:
            self._running.discard(process)

    def _end_all(self) -> None:
        with self._lock:
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


class Jobs(Launcher):
    """Run each as a job of submitit.

    Parameters
    ----------
    command, threads
        As in :class:`Launcher`.
    folder
        Where submitit's files go.
    cluster
        ``"slurm"``, or ``"local"`` for processes on this machine.
    options
        Of the jobs, for ``submitit.AutoExecutor.update_parameters``, such as ``timeout_min`` (by
        default a day), ``mem_gb``, ``gpus_per_node`` or ``slurm_partition``.

    Raises
    ------
    ImportError
        If submitit is not installed.
    """

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        folder: Path,
        cluster: str,
        options: Mapping[str, Any],
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ImportError(
                "jobs of a cluster need submitit: pip install 'faster-isnet[cluster]'"
            ) from error
        super().__init__(command, threads, _MOST_JOBS)
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        parameters = {"timeout_min": _ONE_DAY, "cpus_per_task": threads, "name": "study"}
        self._executor.update_parameters(**parameters | dict(options))
        self._jobs: list[Any] = []
        self._lock = threading.Lock()

    def _run(self, command: Sequence[str], folder: Path) -> None:
        log = str((folder / LOG).absolute())
        with self._lock:  # submitit's executors are not for several threads
            job = self._executor.submit(run_to_end, command, log, self._threads, str(Path.cwd()))
            self._jobs.append(job)
        job.result()

    def _end_all(self) -> None:
        with self._lock:
            for job in self._jobs:
                if not job.done():
                    job.cancel()


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that computes in so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def run_to_end(command: Sequence[str], log: str, threads: int, folder: str) -> int:
    """Run a command in a folder, with its output added to a file, and return its exit code."""
    with Path(log).open("ab") as file:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(threads),
            cwd=folder,
            check=False,
        )
    return done.returncode
