"""Videos and audio on disk and in the report: files, frames, checksums, links."""

import io
import json
import wave

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from fklit.pictures import drawn_waveforms, evenly_spaced
from fklit.report.damage import damage
from fklit.report.media import encoded_audio, encoded_video, sample_files
from fklit.report.page import write_report
from fklit.report.reading import read_run
from fklit.report.writing import write_prompt, write_run


def _video(frames=10, size=(32, 48)):
    """A white bar that moves right over gray."""
    found = np.full((frames, *size, 3), 90, dtype=np.uint8)
    for i in range(frames):
        found[i, :, 4 * i : 4 * i + 6] = 255
    return found


def _record(modality, rate=None):
    return {
        "prompt": "a bar", "prompt_index": 0, "log_weights": [-0.7, -0.69], "rewards": [0.1, 0.9], "best": 1,
        "drawn": 0, "num_steps": 4, "steps": [1], "scored_steps": [1], "ess": [2.0, 2.0], "reward_path": [[0.1, 0.2]],
        "ancestors": [[0, 1]], "resampled": [False], "unique_roots": 2, "log_z": 0.0, "seed": 3, "modality": modality,
        "sampling_rate": rate, "settings_hash": "x",
    }  # fmt: skip


def _written(folder, modality, items, rate=None):
    write_run(folder, {"seed": 3}, "x")
    write_prompt(folder / "00000", _record(modality, rate), items, {"prompt": "a bar"}, frame_rate=8)
    return read_run(folder)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio's reader leaves its pipes
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_a_video_is_read_back_frame_by_frame(tmp_path, size):
    frames = _video(size=size)
    content = encoded_video(frames, 8)
    assert content == encoded_video(frames, 8)
    (tmp_path / "video.mp4").write_bytes(content)
    with imageio.get_reader(tmp_path / "video.mp4", format="FFMPEG") as reader:
        read = np.stack([np.asarray(frame) for frame in reader])
        assert reader.get_meta_data()["fps"] == 8
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 4


def test_a_sound_is_read_back_sample_by_sample():
    samples = np.stack([np.linspace(-1.2, 1, 100), np.zeros(100)]).astype(np.float32)
    with wave.open(io.BytesIO(encoded_audio(samples, 16000))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 16000, 100)
        read = np.frombuffer(file.readframes(100), dtype="<i2").reshape(100, 2).T / 32767
    np.testing.assert_allclose(read, samples.clip(-1, 1), atol=1e-4)


def test_the_strip_of_a_video_holds_evenly_spaced_frames():
    frames = _video()
    files = sample_files([Image.fromarray(f) for f in frames], "video", frame_rate=8, sampling_rate=None)
    assert evenly_spaced(10, 8) == [0, 1, 3, 4, 5, 6, 8, 9] and evenly_spaced(3, 8) == [0, 1, 2]
    assert files.frames == 8 and np.array_equal(np.asarray(files.picture)[:, 48:96], frames[1])


def test_a_waveform_is_drawn_between_its_least_and_greatest_sample():
    sound = torch.zeros(1, 1, 400)
    sound[..., 200:] = 0.5
    drawn = drawn_waveforms(sound, width=40, height=21)[0, 0]
    inked = drawn < 1
    assert inked[10, :20].all() and not inked[:10, :20].any(), "silence is a line in the middle"
    assert inked[5, 20:].all() and not inked[10, 20:].any()
    assert drawn_waveforms(torch.zeros(2, 2, 3), width=8, height=4).shape == (2, 3, 4, 8)


def test_videos_are_on_disk_and_in_the_report(tmp_path):
    items = [[Image.fromarray(frame) for frame in _video()] for _ in range(2)]
    run = _written(tmp_path, "video", items)
    record = run.records[0]
    assert [p.name for p in record.media()] == ["0000.mp4", "0001.mp4"] and record.strip_frames == 8
    assert record.images()[0].size == (48, 32) and record.strips()[0].size == (8 * 48, 32)
    assert np.array_equal(np.asarray(record.images()[1]), _video()[5])
    with Image.open(tmp_path / "00000" / "grid.png") as grid:
        assert grid.size == (96, 32)
    page = write_report(tmp_path / "report.html", steered=tmp_path).read_text(encoding="utf-8")
    assert 'href="00000/samples/0001.mp4"' in page and page.count('class="strip') >= 3
    assert "aspect-ratio:48/32" in page


def test_audio_is_on_disk_and_in_the_report(tmp_path):
    sound = np.sin(np.arange(800) / 9).astype(np.float32)[None]
    run = _written(tmp_path / "a b", "audio", [sound, sound / 2], 8000)
    assert [p.suffix for p in run.records[0].media()] == [".wav", ".wav"]
    page = write_report(tmp_path / "out" / "report.html", steered=tmp_path / "a b").read_text(encoding="utf-8")
    assert '<audio controls preload="none" src="../a%20b/00000/samples/0001.wav">' in page


@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_damaged_media_are_found_by_their_checksums(tmp_path, suffix):
    video = [Image.fromarray(frame) for frame in _video(4)]
    items = [video, video] if suffix == ".mp4" else [np.zeros((1, 50), dtype=np.float32)] * 2
    _written(tmp_path, "video" if suffix == ".mp4" else "audio", items, None if suffix == ".mp4" else 8000)
    folder = tmp_path / "00000"
    record = json.loads((folder / "record.json").read_text())
    assert damage(folder, record) is None
    path = folder / "samples" / f"0001{suffix}"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert damage(folder, record) == f"samples/0001{suffix} has another checksum"
    path.unlink()
    assert damage(folder, record) == f"samples/0001{suffix} is missing"


def test_a_missing_package_is_named(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else found(name))
    with pytest.raises(
        ModuleNotFoundError, match=r"got no imageio_ffmpeg; install them with pip install 'fklit\[video"
    ):
        encoded_video(_video(2), 8)
