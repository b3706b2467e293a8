"""The score from every parameterization of a network's prediction, for every `x = a x_0 + s e`.

============  ===========================================  =============================================
prediction    what it is                                   `E[x_0 | x]`
============  ===========================================  =============================================
score         gradient of log q_t at x                     `(x + s^2 score) / a`
epsilon       `E[e | x]`                                   `(x - s epsilon) / a`
x0            `E[x_0 | x]`                                 itself
v             `a E[e | x] - s E[x_0 | x]`                  `(a x - s v) / (a^2 + s^2)`
flow          `E[e - x_0 | x]`                             `(x - s flow) / (a + s)`
============  ===========================================  =============================================

An EDM denoiser predicts x0 at `x / a` with noise `s / a`; `ScoreModel` calls it so (prediction "edm").
"""

from typing import Literal

from torch import Tensor

from fklit.checks import check_choice

Prediction = Literal["score", "epsilon", "x0", "v", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("score", "epsilon", "x0", "v", "flow")


def to_denoised(prediction: Prediction, output: Tensor, x: Tensor, *, scale: float, sigma: float) -> Tensor:
    """Return `E[x_0 | x]`.

    Args:
        prediction: what `output` is, see the module's table.
        output: the prediction, of the shape of `x`.
        x: the sample.
        scale: `a`, positive.
        sigma: `s`, at least 0.

    Raises:
        ValueError: for another prediction.
    """
    check_choice("prediction", prediction, PREDICTIONS)
    if prediction == "x0":
        return output
    if prediction == "score":
        return (x + sigma**2 * output) / scale
    if prediction == "epsilon":
        return (x - sigma * output) / scale
    if prediction == "v":
        return (scale * x - sigma * output) / (scale**2 + sigma**2)
    return (x - sigma * output) / (scale + sigma)


def to_score(prediction: Prediction, output: Tensor, x: Tensor, *, scale: float, sigma: float) -> Tensor:
    """Return the score; arguments as for `to_denoised`, `sigma` positive unless the prediction is the score."""
    check_choice("prediction", prediction, PREDICTIONS)
    if prediction == "score":
        return output
    if prediction == "epsilon":
        return -output / sigma
    # s score = -e. Written with e, because (a x_0 - x) / s^2 loses the digits of x where s is small.
    if prediction == "v":
        return -(sigma * x + scale * output) / (sigma * (scale**2 + sigma**2))
    if prediction == "flow":
        return -(x + scale * output) / (sigma * (scale + sigma))
    return (scale * output - x) / sigma**2
