"""Two processes (gloo) with an uneven number of prompts, which a sampler pads, say what one process says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from metric_exchange import figures
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "metric_exchange.py"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    pixels = torch.randint(0, 255, (5, 18, 18, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.slow
def test_uneven_numbers_of_prompts(clip_folder, real, tmp_path):
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(clip_folder), real, str(tmp_path / "store")]
    running = [
        subprocess.Popen([*command, str(rank)], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    one = figures(str(clip_folder), real, 5, padded=False)
    for out, _ in said:
        padded, shared = json.loads(out.splitlines()[-1])
        assert shared == pytest.approx(one, rel=1e-4)
        assert padded == pytest.approx({name: one[name] for name in padded}, rel=1e-4)
