"""One self-contained HTML page per run: pictures, reward paths, effective sample sizes, family trees, costs."""

from fklit.report.page import write_report
from fklit.report.reading import PromptRecord, RunFolder, read_run

__all__ = ["PromptRecord", "RunFolder", "read_run", "write_report"]
