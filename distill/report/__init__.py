"""One self-contained HTML page for a run: figures, tables, recipe and digests."""

from distill.report.compare import render_comparison
from distill.report.inputs import ReportInput
from distill.report.render import render_report

__all__ = ["ReportInput", "render_comparison", "render_report"]
