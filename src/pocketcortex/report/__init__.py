"""One page that says what a run found, with its figures and tables."""

from pocketcortex.report.content import ReportContent, ReportTable, ZooPanels
from pocketcortex.report.page import write_report

__all__ = ["ReportContent", "ReportTable", "ZooPanels", "write_report"]
