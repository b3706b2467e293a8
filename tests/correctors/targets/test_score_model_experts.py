"""Networks as experts: every parameterization, one call for all conditions, chunks, and wrong shapes."""

import pytest
import torch
from toys import from_score

from fklit.analytic import GaussianMixture
from fklit.correctors import EDM, LinearFlow, ScoreModel, Target, VariancePreserving, simulate
from fklit.correctors.targets.conversions import PREDICTIONS

LAW = GaussianMixture([[-1.0, 0.5], [1.0, -0.5]], [0.1, 0.2])
PATHS = [VariancePreserving(), EDM(0.02, 10.0), LinearFlow()]


class Network:
    """An exact network of any prediction, shifted by its condition; it keeps the sizes of its calls."""

    def __init__(self, path, prediction):
        self.path, self.prediction, self.calls = path, prediction, []

    def __call__(self, x, time, condition=None):
        self.calls.append(len(x))
        shift = 0.0 if condition is None else condition
        t = float(time[0])
        if self.prediction == "edm":
            return LAW.denoised(x - shift, 1.0, t) + shift
        scale, sigma = self.path.scale(t), self.path.sigma(t)
        score = LAW.score(x - scale * shift, scale, sigma)
        return from_score(self.prediction, score, x, scale=scale, sigma=sigma)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, "edm"])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_every_parameterization_gives_the_score(path, prediction):
    model = ScoreModel(Network(path, prediction), path, prediction=prediction, event_shape=(2,))
    x = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = LAW.score(x, path.scale(0.4), path.sigma(0.4))
    torch.testing.assert_close(model.given().score(x, 0.4), wanted, rtol=1e-8, atol=1e-8)


def test_conditions_share_one_call_and_belong_to_their_groups():
    path = PATHS[0]
    network = Network(path, "epsilon")
    model = ScoreModel(network, path, event_shape=(2,))
    conditions = torch.tensor([[0.5, 0.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    target = Target.guided(model.given(conditions), model.given(torch.zeros(1, 2, dtype=torch.float64)), 2.0)
    x = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = target.evaluate(x, 0.5)
    assert network.calls == [24]
    scale, sigma = path.scale(0.5), path.sigma(0.5)
    shifted = LAW.score(x - scale * conditions.unsqueeze(1), scale, sigma)
    torch.testing.assert_close(found.scores, (shifted, LAW.score(x, scale, sigma)))


def test_chunks_change_nothing():
    path = PATHS[0]
    whole, parts = Network(path, "v"), Network(path, "v")
    target = [
        Target.annealed(ScoreModel(network, path, prediction="v", event_shape=(2,), max_batch=size).given(), 1.5)
        for network, size in ((whole, None), (parts, 7))
    ]
    runs = [simulate(each, num_particles=10, num_groups=2, num_steps=5, dtype=torch.float64) for each in target]
    torch.testing.assert_close(runs[0].samples, runs[1].samples)
    assert whole.calls == [20] * 5 and parts.calls == [7, 7, 6] * 5


def test_wrong_networks_and_conditions():
    path = PATHS[0]
    with pytest.raises(ValueError, match="prediction='noise'"):
        ScoreModel(lambda x, t: x, path, prediction="noise")
    with pytest.raises(ValueError, match="omit time="):
        ScoreModel(lambda x, t: x, path, prediction="edm", time=lambda path, t: t)
    x = torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match="from the network"):
        ScoreModel(lambda x, t: x[:, :1], path).given().score(x, 0.5)
    with pytest.raises(ValueError, match="5 rows for 2 groups"):
        ScoreModel(lambda x, t, c: x, path).given(torch.zeros(5, 1)).score(x, 0.5)
    model = ScoreModel(lambda x, t, c: x, path, event_shape=(2,))
    with pytest.raises(ValueError, match="with and without a condition"):
        Target.guided(model.given(torch.zeros(1, 1)), model.given(), 2.0).evaluate(x, 0.5)
