from types import SimpleNamespace

import pytest
from synthetic_runs import write_run

from fklit.callbacks.report import Report


class _Strategy:
    def __init__(self):
        self.barriers = 0

    def barrier(self, name=None):
        self.barriers += 1


def _trainer(*callbacks, rank=0):
    return SimpleNamespace(callbacks=list(callbacks), strategy=_Strategy(), is_global_zero=rank == 0)


def test_writes_from_the_folder_of_the_writer(tmp_path):
    run = write_run(tmp_path / "run", ["a star", "two cats"])
    report = Report(title="Mine")
    trainer = _trainer(report, SimpleNamespace(output_dir=str(run)))
    report.setup(trainer, None, "predict")
    report.on_predict_end(trainer, None)
    assert "<title>Mine</title>" in (run / "report.html").read_text()
    assert trainer.strategy.barriers == 2


def test_other_processes_only_wait(tmp_path):
    run = write_run(tmp_path / "run", ["a star"])
    report = Report(str(run))
    trainer = _trainer(report, rank=1)
    report.on_predict_end(trainer, None)
    assert not (run / "report.html").exists()
    assert trainer.strategy.barriers == 2


def test_says_before_the_run_that_there_is_no_folder():
    report = Report()
    with pytest.raises(ValueError, match="knows no folder"):
        report.setup(_trainer(report), None, "predict")
    report.setup(_trainer(report), None, "test")


@pytest.mark.parametrize("name", ["report.txt", "a/report.html"])
def test_refuses_other_names(name):
    with pytest.raises(ValueError, match="file name that ends in"):
        Report(name=name)
