"""Pages and tables of what was found."""

from faster_isnet.reporting.run_report import check_runs, write_report
from faster_isnet.reporting.tables import text_table

__all__ = ["check_runs", "text_table", "write_report"]
