"""One self-contained HTML page per run: pictures, rewards, weights, effective sample sizes, family trees, costs."""

from typing import TYPE_CHECKING, NoReturn

from fklit.report.calibration import write_calibration
from fklit.report.page import write_report
from fklit.report.reading import RunFolder, read_run
from fklit.report.record import PromptRecord

__all__ = ["PromptRecord", "RunFolder", "read_run", "write_calibration", "write_report"]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)
