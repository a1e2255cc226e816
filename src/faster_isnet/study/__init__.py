"""Train methods on data sets with several seeds, and put what they are worth on one page.

A run is what ``faster-isnet fit`` and ``test`` do, in a process of its own: how that is trained and
evaluated is in :mod:`faster_isnet.training` and :mod:`faster_isnet.evaluation`, and the program of
the process in :mod:`faster_isnet.commands.study_run`.
"""

from faster_isnet.study.run_study import run_study
from faster_isnet.study.settings import MethodEntry, Range, SearchSettings, StudySettings

__all__ = ["MethodEntry", "Range", "SearchSettings", "StudySettings", "run_study"]
