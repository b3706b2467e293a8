"""The contract of potentials with steps: closure, selection, previews, dead particles, and what is refused."""

import math

import pytest
import torch
from calibrations import of_chain
from worlds import GaussianChain

from fklit.feynman_kac import Adaptive, Difference, Geometric, Linear, RewardPath, ess
from fklit.steering.calibration import Calibrated, Calibration, CalibrationWarning

STEPS = (3, 7, 11, 15)


@pytest.fixture(scope="module")
def made() -> Calibration:
    return of_chain(GaussianChain(score_steps=STEPS))


def _path(made: Calibration, shape: tuple[int, int] = (2, 5), *, scale: float = 2.0) -> RewardPath:
    fitted = Calibrated(made).prepare(STEPS, num_steps=20, reward_scale=scale)
    return RewardPath(fitted, *shape, steps=STEPS)


def _rewards(seed: int, shape: tuple[int, int] = (2, 5)) -> torch.Tensor:
    return -torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).abs()


@pytest.mark.parametrize("curve", ["logistic", "linear"])
def test_the_product_along_every_path_is_the_tilt_of_the_end(made, curve):
    fitted = Calibrated(made, curve=curve).prepare(STEPS, num_steps=20, reward_scale=2.0)
    path, total = RewardPath(fitted, 2, 5, steps=STEPS), torch.zeros(2, 5, dtype=torch.float64)
    for number, scale in enumerate((0.3, 0.3, torch.tensor([1.0, 1.5]), 2.0)):
        total = total + path.update(_rewards(number), scale)
        order = torch.randint(5, (2, 5), generator=torch.Generator().manual_seed(number))
        path.select(order)
        total = total.gather(1, order)
    final = _rewards(9)
    total = total + path.terminal(final, 2.0)
    assert (total - 2.0 * final).abs().max() < 1e-12


def test_each_score_takes_the_curve_of_its_step(made):
    path = _path(made)
    curves = path.potential.curves
    before = torch.zeros(2, 5, dtype=torch.float64)
    for number, step in enumerate(STEPS):
        reward = _rewards(number)
        wanted = curves[step](reward) - before
        assert torch.allclose(path.preview(reward, 2.0), wanted)  # and changes nothing
        assert torch.allclose(path.update(reward, 2.0), wanted)
        before = curves[step](reward)
    with pytest.raises(ValueError, match=r"expected at most 4 intermediate scores, at steps \[3, 7, 11, 15\]"):
        path.update(_rewards(0), 2.0)


def test_a_tempered_curve_is_a_power_of_it(made):
    full, half = _path(made), _path(made)
    reward = _rewards(1)
    assert torch.allclose(half.update(reward, 0.5), 0.25 * full.update(reward, 2.0))
    zero = _path(made)
    reward[0, 0] = -math.inf
    assert (zero.update(reward, 0.0) == 0).all()  # a scale of 0 ignores the reward
    assert (_path(made, scale=0.0).update(_rewards(1), 0.0) == 0).all()


def test_adaptive_tempering_meets_the_ess_on_the_curves(made):
    path = _path(made, (3, 50), scale=6.0)
    scores = _rewards(4, (3, 50)) * 3
    zeros = torch.zeros(3, 50, dtype=torch.float64)
    scale = Adaptive(0.95).scale(path, scores, log_weights=zeros, reward_scale=6.0, point=0, num_points=4)
    assert ((scale > 0) & (scale < 6)).all()
    assert (ess(path.update(scores, scale)) - 0.95 * 50).abs().max() < 1e-6


def test_dead_and_invalid_particles(made):
    path = _path(made, (1, 4))
    first = torch.tensor([[-0.5, -math.inf, math.nan, -1.0]], dtype=torch.float64)
    found = path.update(first, 2.0)
    assert found[0, 1] == -math.inf and found[0, 2].isnan() and torch.isfinite(found[0, [0, 3]]).all()
    after = path.update(_rewards(2, (1, 4)), 2.0)
    assert (after[0, 1:3] == -math.inf).all() and torch.isfinite(after[0, [0, 3]]).all()
    end = path.terminal(_rewards(3, (1, 4)), 2.0)
    assert (end[0, 1:3] == -math.inf).all()


def test_geometric_tempering():
    path, zeros = RewardPath(Difference(), 2, 3), torch.zeros(2, 3)
    found = [
        Geometric(0.01).scale(path, zeros, log_weights=zeros, reward_scale=10.0, point=point, num_points=3)
        for point in range(3)
    ]
    steps = [10 * 0.01**0.75, 10 * 0.01**0.5, 10 * 0.01**0.25]
    assert [float(scale[1]) for scale in found] == pytest.approx(steps)  # equal factors, and 10 at the end
    assert found[0].shape == (2,) and found[0].dtype == torch.float64
    one = Geometric(1.0).scale(path, zeros, log_weights=zeros, reward_scale=3.0, point=0, num_points=1)
    assert (
        one.tolist()
        == Linear(1.0).scale(path, zeros, log_weights=zeros, reward_scale=3.0, point=0, num_points=1).tolist()
    )
    with pytest.raises(ValueError, match=r"expected first above 0, got 0\.0"):
        Geometric(0)
    with pytest.raises(ValueError, match=r"first=1.5 is outside \[0, 1\]"):
        Geometric(1.5)


def test_what_does_not_fit_is_refused_by_name(made):
    potential = Calibrated(made)
    with pytest.raises(ValueError, match=r"expected a run of 20 steps, as the calibration was made, got 30"):
        potential.prepare(STEPS, num_steps=30, reward_scale=2.0)
    with pytest.raises(ValueError, match=r"expected steps near the calibrated \[3, 7, 11, 15\] of 20, got step 5"):
        potential.prepare((3, 4, 5), num_steps=20, reward_scale=2.0)
    near = potential.prepare((3, 4, 8, 11), num_steps=20, reward_scale=2.0).curves  # within a twentieth of the run
    assert near[4] == near[3] != near[8] and list(near) == [3, 4, 8, 11]
    with pytest.raises(ValueError, match=r"expected a Calibrated potential that knows its run"):
        RewardPath(potential, 1, 2).update(torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match=r"expected one of the steps \[3, 7, 11, 15\].*, got None"):
        RewardPath(_path(made).potential, 1, 2).update(torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match="expected a calibration with an upper_bound for curve='logistic'"):
        Calibrated(of_chain(GaussianChain(score_steps=STEPS), bounded=False), curve="logistic")
    with pytest.raises(ValueError, match="curve='cubic'"):
        Calibrated(made, curve="cubic")
    assert repr(potential).startswith("Calibrated(form='increment', calibration=Calibration(64 prompts x 8 samples")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sampler": "DDPM"}, "expected a calibration of sampler 'DDPM', got one of 'DDIM'"),
        ({"reward": "HPSv2"}, "expected a calibration of reward 'HPSv2', got one of 'CLIPScore'"),
        ({"score_scale": 3.0}, "expected a calibration of score_scale 3.0, got one of None"),
        ({"reward_hash": "b"}, "expected a calibration of this CLIPScore, got one of a CLIPScore with other arguments"),
    ],
)
def test_a_calibration_of_another_run_is_refused(made, changed, message):
    run = {"sampler": "DDIM", "reward": "CLIPScore", "reward_hash": "a", "score_scale": None, "arguments": {}}
    mine = Calibration(**{**_parts(made), "run": run})
    Calibrated(mine).prepare(STEPS, num_steps=20, reward_scale=2.0, describe_run=lambda: run)
    with pytest.raises(ValueError, match=message):
        Calibrated(mine).prepare(STEPS, num_steps=20, reward_scale=2.0, describe_run=lambda: {**run, **changed})


def test_other_arguments_and_a_scale_out_of_reach_are_warned_of(made):
    run = {"sampler": "DDIM", "reward": "CLIPScore", "score_scale": None, "arguments": {"guidance_scale": 1.0}}
    mine = Calibration(**{**_parts(made), "run": run})
    other = {**run, "arguments": {"guidance_scale": 7.5}}
    with pytest.warns(CalibrationWarning, match=r"made with arguments .*1.0.*, the run has .*7.5"):
        Calibrated(mine).prepare(STEPS, num_steps=20, reward_scale=2.0, describe_run=lambda: other)
    with pytest.warns(CalibrationWarning, match=r"reward_scale=1e\+06, got .* effective .*use at most \d+"):
        Calibrated(made).prepare(STEPS, num_steps=20, reward_scale=1e6)


def _parts(made: Calibration) -> dict:
    names = ("scores", "rewards", "steps", "num_steps", "prompts", "upper_bound")
    return {name: getattr(made, name) for name in names}
