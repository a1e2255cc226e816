"""Write pages and tables of evaluations.

What they show is measured in :mod:`faster_isnet.evaluation`, and drawn by
:mod:`faster_isnet.plotting`.
"""

from faster_isnet.reporting.audit_page import write_audit_page
from faster_isnet.reporting.evaluation_page import check_comparable, write_evaluation_page
from faster_isnet.reporting.mask_review_page import write_mask_review
from faster_isnet.reporting.result_tables import text_table

__all__ = [
    "check_comparable",
    "text_table",
    "write_audit_page",
    "write_evaluation_page",
    "write_mask_review",
]
