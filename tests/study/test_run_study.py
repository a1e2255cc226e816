"""A study whose processes are replaced: which runs are made, again, or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from faster_isnet.study import MethodEntry, SearchSettings, StudySettings, run_study
from faster_isnet.study import search as searching
from faster_isnet.study.launch import Launcher
from faster_isnet.study.plan import Run, entries
from faster_isnet.study.records import (
    Costs,
    failure_of,
    load_run,
    prepare,
    record_failure,
    record_result,
    record_training,
)
from faster_isnet.study.search import Trial, search, suggest
from faster_isnet.study.settings import Range

SETTINGS = StudySettings(
    {"standard": MethodEntry("standard"), "other": MethodEntry("isnet")}, seeds=[0, 1]
)


def finish(run: Run) -> None:
    record_training(run)
    record_result(run, Costs(1.0, 1.0, 1, 1.0, 1))


class Recorder(Launcher):
    """Finishes runs at once, and records which."""

    def __init__(self, fails: Callable[[Path], bool] = lambda folder: False) -> None:
        super().__init__(1, 1)
        self.folders: list[str] = []
        self.fails = fails

    def submit(self, folder: Path) -> Future[None]:
        self.folders.append(f"{folder.parent.name}/{folder.name}")
        if self.fails(folder):
            record_failure(folder, "too bad")
        else:
            finish(load_run(folder)[0])
        future = Future[None]()
        future.set_result(None)
        return future

    def _run(self, folder: Path) -> None:
        raise AssertionError

    def _end_all(self) -> None:
        return


def test_a_study_is_extended_without_running_again_what_is_there(tmp_path: Path) -> None:
    first = Recorder()
    run_study(entries(SETTINGS, tmp_path), first)
    assert sorted(first.folders) == [
        "other/seed-0",
        "other/seed-1",
        "standard/seed-0",
        "standard/seed-1",
    ]
    more = replace(
        SETTINGS,
        methods={**SETTINGS.methods, "third": MethodEntry("swap")},
        seeds=[0, 1, 2],
    )
    second = Recorder()
    run_study(entries(more, tmp_path), second)
    assert sorted(second.folders) == [
        "other/seed-2",
        "standard/seed-2",
        "third/seed-0",
        "third/seed-1",
        "third/seed-2",
    ]


def test_runs_with_the_same_data_and_seed_share_drawn_masks(tmp_path: Path) -> None:
    standard, other = entries(SETTINGS, tmp_path)
    two = replace(SETTINGS, data={"a": {"batch_size": 8}, "b": {"batch_size": 16}})
    runs = [
        standard.run(0, {}),
        other.run(0, {}),
        other.trial(3, {"model.learning_rate": 0.1}),
        other.run(1, {}),
        other.run(0, {"data.batch_size": 8}),
        *(each.run(0, {}) for each in entries(two, tmp_path)[::2]),
    ]
    folders = [(run.folder / run.drawn_masks).resolve() for run in runs]
    assert all(tmp_path in folder.parents for folder in folders)
    assert folders[0] == folders[1] == folders[2]
    assert len(set(folders)) == 5
    prepare(runs[0])
    assert load_run(runs[0].folder)[0] == runs[0]


def test_a_changed_setting_is_refused_and_named(tmp_path: Path) -> None:
    run_study(entries(SETTINGS, tmp_path), Recorder())
    changed = entries(replace(SETTINGS, trainer={"max_epochs": 3}), tmp_path)
    launcher = Recorder()
    with pytest.raises(ValueError, match=r"trainer\.max_epochs: None -> 3"):
        run_study(changed, launcher)
    assert not launcher.folders
    run_study(changed, launcher, overwrite=True)
    assert len(launcher.folders) == 4


def test_another_evaluation_trains_nothing_again(tmp_path: Path) -> None:
    run_study(entries(SETTINGS, tmp_path), Recorder())
    [entry, *_] = entries(replace(SETTINGS, tested="last"), tmp_path)
    run = entry.run(0, {})
    prepare(run)
    assert load_run(run.folder) == (run, True)


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    launcher = Recorder(lambda folder: folder.parts[-2:] == ("standard", "seed-0"))
    standard, other = run_study(entries(SETTINGS, tmp_path), launcher)
    assert standard.failures == {"0": "too bad"}
    assert list(standard.runs) == [1]
    assert list(other.runs) == [0, 1]
    again = Recorder()
    run_study(entries(SETTINGS, tmp_path), again)
    assert again.folders == ["standard/seed-0"]


def test_nothing_is_started_for_a_report(tmp_path: Path) -> None:
    outcomes = run_study(entries(SETTINGS, tmp_path), None)
    assert outcomes[0].failures == {"0": "not finished", "1": "not finished"}


def _searched(trials: int) -> StudySettings:
    space = {"model.learning_rate": Range(1e-4, 1e-1, log=True)}
    return replace(SETTINGS, search=SearchSettings(trials, common=space), seeds=[0])


def test_a_search_goes_on_with_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")

    def rate(folder: Path) -> float:
        return float(load_run(folder.parent)[0].training["model"]["learning_rate"])

    monkeypatch.setattr(searching.SavedEvaluation, "load", rate)
    monkeypatch.setattr(searching, "objective", lambda rate, name: -abs(rate - 0.01))
    few, many = entries(_searched(2), tmp_path)[0], entries(_searched(4), tmp_path)[0]
    made: list[str] = []

    def run(run: Run) -> bool:
        if not (run.folder / "result.json").is_file():
            prepare(run)
            finish(run)
            made.append(run.folder.name)
        assert run.evaluation["validation"]
        return True

    first, then = search(few, run), search(many, run)
    assert made == ["trial-0", "trial-1", "trial-2", "trial-3"]
    assert list(then.trials[:2]) == list(first.trials)
    best = max(then.trials, key=lambda trial: trial.value or 0)
    assert (then.options, then.value) == (best.options, best.value)


def test_a_trial_that_failed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(searching.SavedEvaluation, "load", lambda folder: None)
    monkeypatch.setattr(searching, "objective", lambda evaluation, name: 0.5)
    launcher = Recorder(lambda folder: folder.name == "trial-0")
    for expected in (6, 0):
        outcomes = run_study(entries(_searched(2), tmp_path), launcher)
        assert len(launcher.folders) == expected
        launcher.folders.clear()
        launcher = Recorder()
    found = outcomes[0].found
    assert found is not None
    assert [trial.value for trial in found.trials] == [None, 0.5]
    assert failure_of(entries(_searched(2), tmp_path)[0].run(0, found.options)) is None


def test_the_first_trials_cover_the_space() -> None:
    """Also the few after that of the study's own values."""
    space = {"model.a": Range(0.001, 1000, log=True), "method.b": list("abc")}
    for seed in range(20):
        settings = SearchSettings(5, seed=seed)
        found = [suggest(space, [Trial({}, 0.5)] * number, settings) for number in range(10)]
        assert len({int(math.log10(each["model.a"]) // 2) for each in found[1:4]}) >= 2
        assert max(each["model.a"] for each in found) > 10
        assert min(each["model.a"] for each in found) < 0.1
        assert {each["method.b"] for each in found} == set("abc")
        assert all(0.001 <= each["model.a"] <= 1000 for each in found)


@pytest.mark.parametrize("before", [1, 10])
def test_suggestions_depend_on_the_trials_and_the_seed_alone(before: int) -> None:
    """Those of Optuna, after ten, as well."""
    pytest.importorskip("optuna")
    space = {"model.a": Range(1, 9, whole=True), "method.b": [None, {"x": 1}]}
    trials = [Trial({"model.a": 3, "method.b": None}, 0.5)] * before
    settings = SearchSettings(5, seed=1)
    found = suggest(space, trials, settings)
    assert found == suggest(space, trials, settings)
    assert isinstance(found["model.a"], int)
    assert found["method.b"] in space["method.b"]  # type: ignore[operator]
    others = [suggest(space, trials, SearchSettings(5, seed=seed)) for seed in range(2, 8)]
    assert any(other != found for other in others)
