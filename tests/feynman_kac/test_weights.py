"""Log-weights: exact numbers, shift invariance, and the policies for NaN and dead groups."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from fklit.feynman_kac import DegenerateGroupError, InvalidWeightError, ess, log_mean_exp, max_weight, normalize
from fklit.feynman_kac.weights import apply_degeneracy_policy, apply_nan_policy, weight_device

INF, NAN = math.inf, math.nan
log_weight = st.one_of(st.floats(-1e4, 1e4), st.just(-INF))
rows = st.lists(log_weight, min_size=1, max_size=12).filter(lambda row: max(row) > -INF)
fixed = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def _row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0.0,) * 7, 7.0),
        ((5.0,) * 7, 7.0),
        ((0.0, -INF, -INF), 1.0),
        ((-INF, -INF, 0.0, -INF), 1.0),
        ((1e4, -1e4), 1.0),
        ((0.0, math.log(3)), 1.6),
        ((-INF, -INF), 0.0),
    ],
)
def test_ess_of_known_weights(row: tuple[float, ...], expected: float) -> None:
    assert float(ess(_row(*row))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@settings(fixed, max_examples=10_000)
@given(rows, st.floats(-1e3, 1e3))
def test_ten_thousand_weights_are_normalized(row: list[float], shift: float) -> None:
    log_weights = _row(*row)
    weights, total = normalize(log_weights), float(log_mean_exp(log_weights))
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12) and not weights[log_weights == -INF].any()
    # An independent reading: exponentials in exact sums, relative to the largest
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    assert total == pytest.approx(top + math.log(math.fsum(parts) / len(row)), rel=1e-12, abs=1e-9)
    assert 1.0 <= float(ess(log_weights)) <= len(row)
    assert float(ess(log_weights)) == pytest.approx(
        math.fsum(parts) ** 2 / math.fsum(part**2 for part in parts), rel=1e-9
    )
    assert float(log_mean_exp(log_weights + shift)) == pytest.approx(total + shift, rel=1e-12, abs=1e-8)


@fixed
@given(rows, st.floats(-1e3, 1e3))
def test_ess_is_shift_invariant_and_bounded(row: list[float], shift: float) -> None:
    value = float(ess(_row(*row)))
    assert 1.0 <= value <= len(row)
    assert float(ess(_row(*row) + shift)) == pytest.approx(value, rel=1e-6)
    assert float(1 / normalize(_row(*row)).square().sum()) == pytest.approx(value, rel=1e-9)


@fixed
@given(rows)
def test_normalized_weights_sum_to_one_and_keep_the_dead_at_zero(row: list[float]) -> None:
    weights = normalize(_row(*row))
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert not weights[_row(*row) == -INF].any()
    assert float(max_weight(_row(*row))) == float(weights.max())


def test_log_mean_exp_of_known_weights() -> None:
    assert float(log_mean_exp(_row(0.0, -INF))) == pytest.approx(-math.log(2))
    assert float(log_mean_exp(_row(1e4, 1e4))) == 1e4
    assert float(log_mean_exp(_row(-1e4, -1e4 + math.log(3)))) == pytest.approx(-1e4 + math.log(2), abs=1e-9)
    assert float(log_mean_exp(_row(-INF, -INF))) == -INF


def test_half_precision_is_cast_up_once() -> None:
    half = torch.tensor([[1.0, 2.0]], dtype=torch.float16)
    assert log_mean_exp(half).dtype == ess(half).dtype == normalize(half).dtype == torch.float64


def test_a_dead_group_normalizes_to_zeros_and_its_neighbor_is_untouched() -> None:
    weights = normalize(torch.tensor([[-INF, -INF], [0.0, 0.0]]))
    assert weights.tolist() == [[0.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_screen_names_the_first_invalid_particle(bad: float) -> None:
    values = torch.tensor([[0.0, 1.0], [-INF, bad]])
    living = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(InvalidWeightError, match=r"1 of 4 .* at update 3 .*group 1, particle 1.*on_nan='drop'"):
        apply_nan_policy(values, living, on_nan="error", context="at update 3")
    cleaned, dropped = apply_nan_policy(values, living, on_nan="drop")
    assert cleaned.tolist() == [[0.0, 1.0], [-INF, -INF]]
    assert dropped.tolist() == [0, 1]


def test_screen_ignores_what_the_dead_return() -> None:
    living = torch.tensor([[True, False]])
    cleaned, dropped = apply_nan_policy(torch.tensor([[1.0, NAN]]), living, on_nan="error")
    assert cleaned.tolist() == [[1.0, 0.0]]
    assert dropped.tolist() == [0]


def test_settle_keeps_or_refuses_dead_groups() -> None:
    values = torch.tensor([[-INF, -INF], [0.0, -INF]])
    with pytest.raises(DegenerateGroupError, match=r"All 2 particles of 1 of 2 groups.*\[0\].*on_degenerate='keep'"):
        apply_degeneracy_policy(values, on_degenerate="error")
    kept, degenerate = apply_degeneracy_policy(values, on_degenerate="keep")
    assert kept.tolist() == [[0.0, 0.0], [0.0, -INF]]
    assert degenerate.tolist() == [True, False]


def test_weights_leave_mps_for_the_cpu_because_it_has_no_float64() -> None:
    assert weight_device(torch.device("mps")) == torch.device("cpu")
    assert weight_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); give shape \(groups, particles\)"):
        ess(torch.zeros(3))
    with pytest.raises(ValueError, match=r"at least one of each"):
        ess(torch.zeros(2, 0))
    with pytest.raises(TypeError, match=r"dtype torch.bool"):
        normalize(torch.ones(1, 2, dtype=torch.bool))


def test_only_the_first_five_dead_groups_are_named() -> None:
    values = torch.full((7, 2), -INF)
    values[0] = 0.0
    with pytest.raises(DegenerateGroupError, match=r"All 2 particles of 6 of 7 groups .*\(groups \[1, 2, 3, 4, 5\]\)"):
        apply_degeneracy_policy(values, on_degenerate="error")


def test_policies_have_names() -> None:
    values, living = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"on_nan='keep' is not known; use one of 'error', 'drop'"):
        apply_nan_policy(values, living, on_nan="keep")
    with pytest.raises(ValueError, match=r"on_degenerate='drop' is not known; use one of 'error', 'keep'"):
        apply_degeneracy_policy(values, on_degenerate="drop")


def test_the_first_of_several_invalid_values_is_named() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, INF, NAN]])
    with pytest.raises(InvalidWeightError, match=r"2 of 6 .*\(first: group 1, particle 1, value inf\)"):
        apply_nan_policy(values, torch.ones(2, 3, dtype=torch.bool), on_nan="error")
