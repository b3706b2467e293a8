"""The page of a calibration: whole, balanced, loading nothing, and fit for odd calibrations."""

import html_page
import pytest
import torch

from fklit.report import write_calibration
from fklit.steering.calibration import Calibration, propose, summarize


def _made(**changes):
    generator = torch.Generator().manual_seed(0)
    rewards = -torch.randn(12, 6, generator=generator, dtype=torch.float64).abs()
    scores = torch.stack([rewards * share - 0.5 for share in (0.2, 0.6, 1.0)], dim=2)
    scores += -0.3 * torch.rand(scores.shape, generator=generator)
    parts = {
        "scores": scores,
        "rewards": rewards,
        "steps": [2, 4, 6],
        "num_steps": 8,
        "prompts": [f"<b>prompt {number}" for number in range(12)],
        "run": {"reward": "A<B", "sampler": "DDIM"},
        "upper_bound": 0.0,
        "score_seconds": 0.3,
        "denoiser_seconds": 0.1,
    }
    return Calibration(**{**parts, **changes})


def test_a_page_shows_proposals_charts_curves_and_steps(tmp_path):
    made = _made()
    proposals = [propose(made, "best"), propose(made, "sample")]
    page = write_calibration(tmp_path / "deep" / "page.html", summarize(made, proposals))
    found, text = html_page.parse(page), page.read_text()
    assert found.addresses == [] and "script" not in found.tags
    assert "A&lt;B" in text and "A<B" not in text and "<b>prompt " not in text
    steps = proposals[-1].reward_schedule.indices
    assert found.tags.count("svg") == 3 + len(steps)
    assert found.tags.count("tr") == 3 + 1 + 3
    assert f"{proposals[0].reward_scale:g}" in text and "3.00 denoiser calls" in text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": torch.zeros(12, 6, 3), "upper_bound": None},
        {"scores": torch.full((12, 6, 3), -torch.inf)},
        {"rewards": torch.zeros(12, 6), "upper_bound": None},
        {"steps": [3], "scores": -torch.rand(12, 6, 1), "score_seconds": None},
    ],
)
def test_odd_calibrations_have_a_page_too(tmp_path, changes):
    page = write_calibration(tmp_path / "page.html", summarize(_made(**changes), [], reward_scale=2.0))
    html_page.parse(page)
    text = page.read_text()
    assert "nothing is proposed" in text and "nan" not in text
