"""Run a study: search, train and evaluate what is not finished, in several processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass

from faster_isnet.study.launch import Launcher
from faster_isnet.study.plan import Entry, Run
from faster_isnet.study.records import (
    LOG,
    State,
    changes,
    failure_of,
    prepare,
    remove,
    state_of,
)
from faster_isnet.study.search import Found, search

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntryOutcome:
    """Hold what became of a method on a data set.

    Attributes
    ----------
    entry
        The method and the data set.
    found
        By the search; ``None`` if that failed.
    runs
        By seed, the finished ones.
    failures
        By seed, or ``"search"``, why it failed.
    """

    entry: Entry
    found: Found | None
    runs: Mapping[int, Run]
    failures: Mapping[str, str]


def run_study(
    entries: Sequence[Entry], launcher: Launcher | None, overwrite: bool = False
) -> list[EntryOutcome]:
    """Run all that is not finished, and return what became of each method on each data set.

    A run that fails is named, and the others go on.

    Parameters
    ----------
    entries
        See :func:`~faster_isnet.study.plan.entries`.
    launcher
        Starts the processes; ``None`` to train nothing, and return what is finished.
    overwrite
        Whether runs that were trained with other settings are trained again.

    Raises
    ------
    ValueError
        Before anything is trained: if a run was trained with other settings.
    """
    if launcher is None:
        return [_finish_entry(each, None, False) for each in entries]
    if not overwrite:
        check_unchanged(entries)
    with launcher, ThreadPoolExecutor(len(entries)) as chains:
        waiting = [chains.submit(_finish_entry, each, launcher, overwrite) for each in entries]
        try:
            return [each.result() for each in waiting]
        except BaseException:
            launcher.stop()  # the chains wait for its processes, and the pool for the chains
            raise


def check_unchanged(entries: Sequence[Entry]) -> None:
    """Raise ``ValueError`` if a run was trained with other settings than it would be now.

    Of a method that is searched, the runs with the options that were found are checked later.
    """
    changed = []
    for entry in entries:
        searched = entry.space and entry.settings.search.trials
        seeds = () if searched else entry.settings.seeds
        runs = [entry.run(seed, {}) for seed in seeds]
        changed += [run for run in runs if state_of(run) is State.CHANGED]
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(f"{_changed(changed[0])}{others}; {_CURE}")


_CURE = (
    "restore the settings, name another folder (--out) or method, or train these runs again: "
    "--overwrite"
)


def _changed(run: Run) -> str:
    return f"{str(run.folder)!r} was trained with other settings ({'; '.join(changes(run))})"


def _finish_entry(entry: Entry, launcher: Launcher | None, overwrite: bool) -> EntryOutcome:
    """Search, then train and evaluate with all seeds."""
    title = f"{entry.data}, {entry.method}"

    def finish(run: Run) -> bool:
        # What follows a failed trial depends on it, so it is not tried again.
        reason = failure_of(run) or _finish(run, launcher, overwrite)
        if reason is not None and failure_of(run) is None:
            raise ValueError(f"{run.folder.name}: {reason}")
        if reason is not None:
            log.warning("%s: %s failed: %s", title, run.folder.name, reason)
        return reason is None

    try:
        found = search(entry, finish)
    except (ValueError, ImportError, OSError) as error:
        log.warning("%s: the search failed: %s", title, error)
        return EntryOutcome(entry, None, {}, {"search": str(error)})
    runs = {seed: entry.run(seed, found.options) for seed in entry.settings.seeds}
    with ThreadPoolExecutor(len(runs)) as pool:
        reasons = list(pool.map(lambda run: _finish(run, launcher, overwrite), runs.values()))
    failures = {
        str(seed): reason for seed, reason in zip(runs, reasons, strict=True) if reason is not None
    }
    for seed, reason in failures.items():
        log.warning("%s, seed %s: failed: %s", title, seed, reason)
    finished = {seed: run for seed, run in runs.items() if str(seed) not in failures}
    return EntryOutcome(entry, found, finished, failures)


def _finish(run: Run, launcher: Launcher | None, overwrite: bool) -> str | None:
    """Train and evaluate a run if need be; return why it failed, ``None`` if it did not."""
    state = state_of(run)
    if state is State.FINISHED:
        return None
    if state is State.CHANGED and not overwrite:
        return f"{_changed(run)}; {_CURE}"
    if launcher is None:
        return failure_of(run) or "not finished"
    if state is State.CHANGED:
        remove(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    prepare(run)
    try:
        launcher.submit(run.folder).result()
    except CancelledError:
        raise
    except Exception as error:  # of submitit, whose jobs may be lost in many ways
        return f"the job failed: {error}"
    if state_of(run) is State.FINISHED:
        log.info("finished: %s", run.folder)
        return None
    return failure_of(run) or f"its process was ended; see {run.folder / LOG}"
