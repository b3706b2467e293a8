"""One self-contained HTML page per run: pictures, rewards, weights, effective sample sizes, family trees, costs."""

from fklit.report.page import write_report
from fklit.report.reading import RunFolder, read_run
from fklit.report.record import PromptRecord

__all__ = ["PromptRecord", "RunFolder", "read_run", "write_report"]
