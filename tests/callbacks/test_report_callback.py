import json
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from synthetic_runs import write_run
from tiny import tiny_stable_diffusion

from fklit.callbacks import Report, SampleWriter, TensorBoardParticles
from fklit.correctors.guidance.task import GuidanceTask
from fklit.data import PromptDataModule
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Function
from fklit.steering.task import SteeringTask


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
    with pytest.raises(ValueError, match="expected output_dir"):
        report.setup(_trainer(report), None, "predict")
    report.setup(_trainer(report), None, "test")


@pytest.mark.parametrize("name", ["report.txt", "a/report.html"])
def test_refuses_other_names(name):
    with pytest.raises(ValueError, match="file name that ends in"):
        Report(name=name)


def test_names_the_method_that_ran(tmp_path):
    for corrects, title in ((False, "Steering report"), (True, "Corrected guidance")):
        run = write_run(tmp_path / title, ["a star"])
        path = run / "00000" / "record.json"
        record = json.loads(path.read_text())
        if corrects:
            record |= {"rewards": None, "reward_path": None, "drawn": 2, "num_steps": 5, "log_weight_std": [0.1] * 5}
        path.write_text(json.dumps(record))
        report = Report(str(run))
        report.on_predict_end(_trainer(report), None)
        assert f"<title>{title}</title>" in (run / "report.html").read_text()


def test_a_run_of_corrected_guidance_is_reported_and_goes_on_where_it_was_stopped(tmp_path):
    tiny_stable_diffusion(tmp_path / "pipeline")
    out = tmp_path / "out"

    def predict():
        task = GuidanceTask(
            PipelineSource(str(tmp_path / "pipeline")),
            num_particles=2,
            ess_threshold=1.0,
            pipeline_kwargs={"num_inference_steps": 4, "eta": 1.0},
        )
        Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            callbacks=[SampleWriter(str(out)), Report(), TensorBoardParticles(log_dir=str(tmp_path / "events"))],
        ).predict(task, PromptDataModule(prompts=["a star", "two cats"], batch_size=1), return_predictions=False)
        return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.png"))}

    first, kept = predict(), (out / "00000" / "record.json").stat().st_mtime_ns
    assert (out / "report.html").read_text().count('class="card prompt"') == 2
    (out / "report.html").unlink()
    (out / "00001" / "record.json").unlink()  # as if it had been stopped while it wrote the second prompt
    assert predict() == first
    assert (out / "00000" / "record.json").stat().st_mtime_ns == kept
    assert (out / "report.html").read_text().count('class="card prompt"') == 2


def test_a_predict_run_ends_with_a_page_and_event_files(tmp_path):
    tiny_stable_diffusion(tmp_path / "pipeline")
    task = SteeringTask(
        PipelineSource(str(tmp_path / "pipeline")),
        reward=Function(lambda images: images[:, 0].mean((1, 2))),
        num_particles=2,
        reward_scale=300.0,
        ess_threshold=1.0,
        reward_schedule=Schedule(start=1, stop=2, every=1),
        pipeline_kwargs={"num_inference_steps": 4, "eta": 1.0},
    )
    out = tmp_path / "out"
    callbacks = [SampleWriter(str(out)), Report(), TensorBoardParticles(log_dir=str(tmp_path / "events"))]
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=callbacks,
    )
    trainer.predict(task, PromptDataModule(prompts=["a star", "two cats"], batch_size=2), return_predictions=False)
    text = (out / "report.html").read_text()
    assert text.count('class="card prompt"') == 2 and "two cats" in text
    assert text.count('class="tree"') == 2
    assert len(list((tmp_path / "events").glob("events.*"))) == 1
