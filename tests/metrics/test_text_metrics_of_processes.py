"""Two processes (gloo) with an uneven number of texts, which a sampler pads, say what one process says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from text_metric_exchange import figures
from tiny_language_models import write_llama

SCRIPT = Path(__file__).parents[1] / "text_metric_exchange.py"


@pytest.mark.slow
def test_uneven_numbers_of_texts(tmp_path):
    judge = write_llama(tmp_path / "judge")
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), judge, str(tmp_path / "store")]
    running = [
        subprocess.Popen([*command, str(rank)], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    expected = [figures(judge), figures(judge, padded=False)]
    for out, _ in said:
        for found, one in zip(json.loads(out.splitlines()[-1]), expected, strict=True):
            assert found == pytest.approx(one, rel=1e-6)
