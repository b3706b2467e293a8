"""The benchmark of cheaper scores runs as it is, and counts what each arm decodes and scores."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "cheaper_scores.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fklit.pipelines.fast_decoder.SlowPreviewWarning")
def test_arms_decode_and_score_what_they_say(tmp_path):
    spec = importlib.util.spec_from_file_location("cheaper_scores", PATH)
    bench = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)
    words = ["--prompts", "2", "--particles", "2", "--steps", "5", "--repeats", "1"]
    report = bench.main([*words, "--output", str(tmp_path / "out.json")])
    rows = {
        name: (arm["rows decoded"], arm["rows decoded by the preview decoder"]) for name, arm in report["arms"].items()
    }
    scores = 3  # 0.3 to 0.8 of five steps
    assert rows["best-of-K"] == (4, 0) and rows["FK"] == (4 + 4 * scores, 0)
    assert rows["FK, channels_last"] == rows["FK, bfloat16, channels_last"] == (4, 4 * scores)
    assert report["agreement"]["channels_last"]["largest difference of a pixel"] < 1e-5
    assert (tmp_path / "out.json").is_file()
