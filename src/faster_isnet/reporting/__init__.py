"""Write results as pages and as tables of text.

The results themselves come from :mod:`faster_isnet.evaluation`; single images of heatmaps are drawn
in :mod:`faster_isnet.plotting`.
"""

from faster_isnet.reporting.run_report import check_runs, write_report
from faster_isnet.reporting.tables import text_table

__all__ = ["check_runs", "text_table", "write_report"]
