"""SampleWriter: the layout on disk, resuming, refusing to mix, and files that are whole or absent."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos import BoringModel
from PIL import Image
from tiny import tiny_stable_diffusion

import fklit
from fklit.callbacks import SampleWriter
from fklit.data import PromptDataModule
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.report.reading import read_run
from fklit.report.writing import write_prompt
from fklit.rewards import Function
from fklit.steering.task import SteeringTask

PROMPTS = ["a green heart", "two cats", "a red apple", "a dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return str(path)


class Redness:
    """A reward that can stop a run, as a kill would."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.scored = []

    def settings(self):
        return {"reward": "redness"}

    def __call__(self, images, prompts):
        self.scored += prompts
        if self.stop_at in prompts:
            raise KeyboardInterrupt
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def run(
    folder, out, *, reward=None, prompts=PROMPTS, batch_size=1, overwrite=False, through_datamodule=True, **changes
):
    settings = {
        "num_particles": 2,
        "reward_scale": 30.0,
        "reward_schedule": Schedule(start=1, stop=2, every=1),
        "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0},
    }
    reward = reward or Redness()
    task = SteeringTask(PipelineSource(folder), reward=Function(reward), **{**settings, **changes})
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=out.parent,
        callbacks=[SampleWriter(str(out), overwrite=overwrite)],
    )
    data = PromptDataModule(prompts=prompts, batch_size=batch_size)
    returned = trainer.predict(
        task, data if through_datamodule else data.predict_dataloader(), return_predictions=False
    )
    assert returned is None
    return task, reward


def contents(out, *, ignore_cost=True):
    """Every file by relative name: bytes, but records without what depends on the clock."""
    found = {}
    for path in sorted(Path(out).rglob("*")):
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.name == "record.json" and ignore_cost:
            record = json.loads(content)
            del record["budget"]["seconds"], record["budget"]["peak_memory_bytes"]
            content = record
        found[str(path.relative_to(out))] = content
    return found


def test_layout(folder, tmp_path):
    out = tmp_path / "out"
    rows = [{"prompt": "a green heart", "tag": "colors", "include": [{"class": "heart"}]}, {"prompt": "ü 日本"}]
    run(folder, out, prompts=rows, batch_size=2)
    names = ["grid.png", "metadata.jsonl", "previews.npz", "record.json", "samples/0000.png", "samples/0001.png"]
    assert sorted(contents(out)) == sorted([*(f"{p:05d}/{name}" for p in range(2) for name in names), "run.json"])
    assert [json.loads((out / f"{p:05d}" / "metadata.jsonl").read_text()) for p in range(2)] == rows
    assert "日本" in (out / "00001" / "metadata.jsonl").read_text(encoding="utf-8")
    with Image.open(out / "00000" / "grid.png") as grid, Image.open(out / "00000" / "samples" / "0001.png") as second:
        assert grid.size == (32, 16) and second.size == (16, 16)
        assert np.array_equal(np.array(grid)[:, 16:], np.array(second))
    record = json.loads((out / "00000" / "record.json").read_text())
    settings = json.loads((out / "run.json").read_text())
    assert record["settings_hash"] == settings["settings_hash"] and len(record["rewards"]) == 2
    assert settings["settings"]["num_particles"] == 2 and set(settings["versions"]) >= {"fklit", "torch", "diffusers"}
    with np.load(out / "00000" / "previews.npz") as archive:
        assert archive["previews"].dtype == np.uint8 and archive["previews"].shape[:2] == (2, 2)
        assert archive["previews"].shape[-1] == 3


def test_the_report_reads_what_is_written(folder, tmp_path):
    run(folder, tmp_path / "out")
    found = read_run(tmp_path / "out")
    assert [record.prompt for record in found.records.values()] == PROMPTS
    for record in found.records.values():
        assert len(record.images()) == 2
        assert record.previews() is not None
        assert record.weights.sum() == pytest.approx(1)


def test_files_do_not_depend_on_the_batch_size(folder, tmp_path):
    run(folder, tmp_path / "one", batch_size=1)
    run(folder, tmp_path / "three", batch_size=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.parametrize("through_datamodule", [True, False])
def test_a_killed_run_goes_on_where_it_stopped(folder, tmp_path, through_datamodule):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(folder, whole)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(folder, parts, reward=Redness(stop_at=PROMPTS[2]), through_datamodule=through_datamodule)
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.png")}
    assert {path.name for path in parts.iterdir()} == {"00000", "00001", "run.json"}
    _, reward = run(folder, parts, through_datamodule=through_datamodule, batch_size=3)
    assert set(reward.scored) == set(PROMPTS[2:])
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents(parts) == contents(whole)


def test_nothing_is_loaded_when_everything_is_done(folder, tmp_path):
    run(folder, tmp_path / "out")
    task, reward = run(folder, tmp_path / "out")
    assert not task.source.is_loaded and not reward.scored


def test_a_half_written_prompt_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    expected = contents(out)
    (out / "00001" / "record.json").unlink()
    (out / "00001" / "samples" / "0001.png").unlink()
    (out / "00001" / "samples" / "0007.png").write_bytes(b"of a run that was killed")
    _, reward = run(folder, out)
    assert set(reward.scored) == {PROMPTS[1]}
    assert contents(out) == expected


def test_other_settings_are_refused_and_nothing_is_touched(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    before = contents(out, ignore_cost=False)
    with pytest.raises(ValueError, match=r"got others \(seed: 0 -> 1\); choose another --output_dir, or set over"):
        run(folder, out, seed=1)
    assert contents(out, ignore_cost=False) == before


def test_a_folder_of_version_0_1_is_refused_and_may_be_replaced(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    content = json.loads((out / "run.json").read_text())
    content["versions"]["fklit"] = "0.1.0"
    (out / "run.json").write_text(json.dumps(content))
    before = contents(out, ignore_cost=False)
    with pytest.raises(ValueError, match=r"0\.2 or newer, got .*out of fklit 0\.1\.0; choose another --output_dir, or"):
        run(folder, out)
    with pytest.raises(ValueError, match=r"got .*out of fklit 0\.1\.0; make its report with fklit 0\.1\.0"):
        read_run(out)
    assert contents(out, ignore_cost=False) == before
    run(folder, out, overwrite=True)
    assert json.loads((out / "run.json").read_text())["versions"]["fklit"] == fklit.__version__


def test_another_prompt_under_the_same_index_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    with pytest.raises(ValueError, match=r"00002 with a result of another prompt \('a red apple'\)"):
        run(folder, out, prompts=[*PROMPTS[:2], "a blue book"])
    with pytest.raises(ValueError, match="00002 with a result of another prompt"):
        run(folder, out, prompts=[*PROMPTS[:2], "a blue book"], through_datamodule=False)


def test_overwrite_replaces_other_settings_and_leaves_no_mixture(folder, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    run(folder, out, num_particles=3)
    run(folder, out, prompts=PROMPTS[:2], overwrite=True, previews=False)
    run(folder, fresh, prompts=PROMPTS[:2], previews=False)
    assert list(read_run(out).records) == [0, 1]
    left = contents(out)
    for name, content in contents(fresh).items():
        assert left[name] == content
    assert "00000/previews.npz" not in left and "00000/samples/0002.png" not in left
    _, reward = run(folder, out, prompts=PROMPTS[:2], overwrite=True, previews=False)
    assert not reward.scored


def test_a_folder_of_somebody_else_is_refused(folder, tmp_path):
    theirs = tmp_path / "out" / "00001" / "samples"
    theirs.mkdir(parents=True)
    (theirs / "mine.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"got files in .*00001 without .*run\.json"):
        run(folder, tmp_path / "out")
    assert (theirs / "mine.png").read_bytes() == b"x"


def test_a_write_that_fails_leaves_no_record(tmp_path):
    class Broken:
        size, mode = (4, 4), "RGB"

        def save(self, file, format):
            file.write(b"half")
            raise OSError("disk full")

    write_prompt(tmp_path / "p", {"a": 1}, [Image.new("RGB", (4, 4))], {"prompt": "x"})
    with pytest.raises(OSError, match="disk full"):
        write_prompt(tmp_path / "p", {"a": 2}, [Broken()], {"prompt": "x"})
    assert not (tmp_path / "p" / "record.json").exists()
    assert not (tmp_path / "p" / "samples" / "0000.png").exists()


def test_previews_keep_their_axes(tmp_path):
    previews = torch.arange(2 * 3 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 3, 4, 5)
    write_prompt(tmp_path / "p", {}, [Image.new("L", (4, 4))], {"prompt": "x"}, previews)
    with np.load(tmp_path / "p" / "previews.npz") as archive:
        assert np.array_equal(archive["previews"], previews.permute(0, 1, 3, 4, 2).numpy())


def test_it_belongs_to_a_steering_task(tmp_path):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[SampleWriter(str(tmp_path / "out"))]
    )
    with pytest.raises(TypeError, match=r"SteeringTask or GuidanceTask\), got a BoringModel"):
        trainer.predict(BoringModel())
    assert not (tmp_path / "out").exists()
