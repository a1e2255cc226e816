"""Start the processes of runs: on this machine, or as jobs of a cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from typing_extensions import Self

from faster_isnet.study.records import LOG

log = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds that a process has to end, once it is told to
_MOST_JOBS = 256  # that wait or run on a cluster at once
_ONE_DAY = 24 * 60  # minutes


class Launcher(ABC):
    """Start a process for each run, and end them all when the study is stopped.

    Parameters
    ----------
    threads
        Of each process.
    at_once
        How many may run at the same time.
    """

    def __init__(self, threads: int, at_once: int) -> None:
        self._threads = threads
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
            log.info("begins: %s", folder)
            self._run(folder)
        if self._stopped.is_set():
            raise CancelledError

    @abstractmethod
    def _run(self, folder: Path) -> None:
        """Start the process of a run, and wait for its end."""

    @abstractmethod
    def _end_all(self) -> None:
        """End all that run."""


class Processes(Launcher):
    """Run several processes on this machine.

    They are forked from one that has imported the program, where the system can do that: what a
    program imports takes seconds. A process ends when the study does, however that ends.

    Parameters
    ----------
    program
        What a process does with the folder of its run; a function of a module.
    threads, at_once
        As in :class:`Launcher`.
    """

    def __init__(self, program: Callable[[Path], int], threads: int, at_once: int) -> None:
        super().__init__(threads, at_once)
        self._program = program
        self._context = _context()
        self._context.set_forkserver_preload([program.__module__])
        self._lock = threading.Lock()
        self._running: set[BaseProcess] = set()

    def _run(self, folder: Path) -> None:
        arguments = (self._program, folder, self._threads)
        process = self._context.Process(target=_run_here, args=arguments)
        with self._lock:
            if self._stopped.is_set():
                return
            process.start()
            self._running.add(process)
        process.join()
        with self._lock:
            self._running.discard(process)

    def _end_all(self) -> None:
        with self._lock:
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            process.join(_PATIENCE)
            process.kill()


class Jobs(Launcher):
    """Run each as a job of submitit.

    Parameters
    ----------
    command
        The program and its arguments; the run's folder is put behind them.
    threads
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
        super().__init__(threads, _MOST_JOBS)
        self._command = list(command)
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        parameters = {"timeout_min": _ONE_DAY, "cpus_per_task": threads, "name": "study"}
        self._executor.update_parameters(**parameters | dict(options))
        self._jobs: list[Any] = []
        self._lock = threading.Lock()

    def _run(self, folder: Path) -> None:
        command = [*self._command, str(folder)]
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


def run_to_end(command: Sequence[str], log: str, threads: int, folder: str) -> int:
    """Run a command in a folder, with its output added to a file, and return its exit code."""
    variables = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with Path(log).open("ab") as file:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            cwd=folder,
            check=False,
        )
    return done.returncode


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are started here: forked from one that has imported, if possible."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def _run_here(program: Callable[[Path], int], folder: Path, threads: int) -> None:
    """Do in a process of its own what a run needs, with its output added to a file."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the study alone, which ends its processes
    with (folder / LOG).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    threading.Thread(target=_end_with_study, daemon=True).start()
    torch.set_num_threads(threads)
    sys.exit(program(folder))


def _end_with_study() -> None:
    """Wait for the end of the study's process, and end this one."""
    study = multiprocessing.parent_process()
    assert study is not None
    wait([study.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
