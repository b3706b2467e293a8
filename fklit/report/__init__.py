"""One self-contained HTML page per run: pictures side by side, reward paths, effective sample size, family trees and costs."""

from fklit.report.page import write_report
from fklit.report.reading import PromptRecord, RunFolder, read_run

__all__ = ["PromptRecord", "RunFolder", "read_run", "write_report"]
