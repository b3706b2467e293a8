"""The files of one sample: a picture that stands for it, and the video or the sound itself."""

import importlib.util
import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fklit.pictures import drawn_waveforms, evenly_spaced

STRIP_FRAMES = 8
"""Most frames of a video in its strip."""

DEFAULT_FRAME_RATE = 16.0
"""Frames a second of video files, if nobody says otherwise; models differ (8 to 30)."""

_WAVEFORM = (512, 128)


@dataclass(frozen=True)
class SampleFiles:
    """What is written of one sample.

    Attributes:
        picture: PNG: the image, frames of the video side by side, or the waveform drawn.
        frames: frames in `picture`, 1 for images and audio.
        media: content of the video or sound file; None for images.
        suffix: its ending, ".mp4" or ".wav"; empty for images.
    """

    picture: Image.Image
    frames: int = 1
    media: bytes | None = None
    suffix: str = ""


def sample_files(item: Any, modality: str, *, frame_rate: float, sampling_rate: int | None) -> SampleFiles:
    """Return the files of a sample.

    Args:
        item: a PIL image, a list of PIL images, or an array (C, T), as `result.items` has them.
        modality: "image", "video" or "audio".
        frame_rate: frames a second of videos.
        sampling_rate: samples a second of audio.

    Raises:
        ModuleNotFoundError: a video, and the packages that write it are not installed.
    """
    if modality == "video":
        frames = [np.asarray(frame.convert("RGB")) for frame in item]
        chosen = [frames[i] for i in evenly_spaced(len(frames), STRIP_FRAMES)]
        strip = Image.fromarray(np.concatenate(chosen, axis=1))
        return SampleFiles(strip, len(chosen), encoded_video(np.stack(frames), frame_rate), ".mp4")
    if modality == "audio":
        assert sampling_rate is not None
        width, height = _WAVEFORM
        drawn = drawn_waveforms(torch.from_numpy(np.asarray(item))[None], width=width, height=height)[0]
        picture = Image.fromarray((drawn * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        return SampleFiles(picture, 1, encoded_audio(np.asarray(item), sampling_rate), ".wav")
    return SampleFiles(item)


def one_picture(picture: Image.Image, frames: int) -> Image.Image:
    """Return the middle frame of a strip of frames; the picture itself where it is one."""
    if frames == 1:
        return picture
    width = picture.width // frames
    return picture.crop((frames // 2 * width, 0, (frames // 2 + 1) * width, picture.height))


def check_video_writer() -> None:
    """Raise unless videos can be written.

    Raises:
        ModuleNotFoundError: imageio or its ffmpeg is not installed.
    """
    missing = [name for name in ("imageio", "imageio_ffmpeg") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"writing videos expected the packages imageio and imageio-ffmpeg, got no {missing[0]}; install them with "
            "pip install 'fklit[video]'."
        )


def encoded_video(frames: npt.NDArray[np.uint8], frame_rate: float) -> bytes:
    """Return an MP4 file (H.264) of frames (F, H, W, 3).

    Frames of odd height or width are stored without chroma subsampling, which some players cannot show.

    Args:
        frames: bytes.
        frame_rate: frames a second.
    """
    import tempfile

    check_video_writer()
    import imageio.v2 as imageio

    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"  # the muxer seeks, which a pipe cannot
        # One thread and no dates: equal frames give equal files.
        writer: Any = imageio.get_writer(
            path, format="FFMPEG", fps=frame_rate, codec="libx264", quality=8, macro_block_size=1,
            pixelformat="yuv420p" if even else "yuv444p",
            output_params=["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"],
        )  # fmt: skip
        with writer:
            for frame in frames:
                writer.append_data(frame)
        return path.read_bytes()


def encoded_audio(samples: npt.NDArray[np.floating[Any]], sampling_rate: int) -> bytes:
    """Return a WAV file, 16 bit, of samples (C, T) in [-1, 1]; what is beyond is clipped, as players do."""
    bounded = np.clip(samples, -1.0, 1.0)
    pcm = np.round(bounded.T * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
