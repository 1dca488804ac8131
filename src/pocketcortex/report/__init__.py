"""One page that says what a run found, with its figures and tables."""

from pocketcortex.report.content import ReportContent
from pocketcortex.report.page import write_report

__all__ = ["ReportContent", "write_report"]
