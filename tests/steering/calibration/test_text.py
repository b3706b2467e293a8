"""Calibration of a model that owns its steps, up to the target, in closed form: each word is drawn alone."""

import math

import pytest
import torch

import fklit
from fklit.text import MaskedTextModel, TextSampling
from fklit.text.words import build_tokenizer

SHARES = torch.tensor([0.3, 0.3, 0.25, 0.15], dtype=torch.float64)  # of a, b, c and the full stop
SCALE = 1.0


class Words:
    """A denoiser with one law for every masked place."""

    def __call__(self, tokens, at):
        logits = torch.cat([torch.full((4,), 9.0, dtype=torch.float64), SHARES.log()])
        return logits.expand(*tokens.shape, 8)[at]


def count_a(texts):
    return [float(text.count("a")) for text in texts]


def _model(num_draws):
    words = build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", "a", "b", "c", "."])
    return MaskedTextModel(Words(), words, sampling=TextSampling(length=5, num_steps=5, num_draws=num_draws))


@pytest.mark.parametrize("num_draws", [1, 2])
def test_calibrated_text_keeps_the_target(num_draws):
    dense = fklit.Schedule(indices=(1, 2, 3, 4))
    made = fklit.calibrate(
        _model(num_draws), [""] * 40, reward=count_a, reward_scale=SCALE, schedule=dense, batch_size=40
    )
    assert made.scores.shape == (40, 8, 4) and made.score_cost > 0
    assert made.run["score_scale"] == (None if num_draws == 1 else SCALE)
    given = {"reward": count_a, "num_particles": 4, "reward_schedule": dense, "goal": "sample", "calibration": made}
    result = fklit.steer(_model(num_draws), [""] * 1200, reward_scale=SCALE, **given)
    assert result.settings["potential"].startswith("Calibrated(") and result.resampled.any()
    share = 0.3
    z = (1 - share + share * math.exp(SCALE)) ** 5
    mean = 5 * share * math.exp(SCALE) / (1 - share + share * math.exp(SCALE))
    for values, exact in ((result.log_z.exp() / z, 1.0), (result.log_z.exp() / z * result.reward_mean, mean)):
        error = float(values.std() / math.sqrt(1200))
        assert abs(float(values.mean()) - exact) < 4 * error < 0.25 * exact
    if num_draws == 2:  # whose scores are means over draws at that scale
        with pytest.raises(ValueError, match=r"expected a calibration of score_scale 0\.5, got one of 1\.0"):
            fklit.steer(_model(2), [""], reward_scale=0.5, **given)
