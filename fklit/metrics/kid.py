"""The kernel distance between features of samples and of real images."""

from jaxtyping import Float
from torch import Tensor

from fklit.metrics.feature_distance import FeatureDistance

_BLOCK = 4096  # rows of a kernel matrix that are in memory at once


class CLIPKID(FeatureDistance):
    """Squared maximum mean discrepancy between image embeddings of samples and of real images (KID).

    With the kernel `(x . y / d + 1)^3` and the unbiased estimator over all pairs (Binkowski et al. 2018,
    arXiv:1801.01401, section 4), in the embeddings of any open_clip model. Its expectation does not depend on the
    number of samples, so that it also serves for few; it may fall below 0. All samples are used in place of the mean
    over random subsets that torchmetrics takes, so that it is the same number every time.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        real: Real images: a folder of files, or a data module whose batches have images in [0, 1].
        real_split: Of a data module.
        num_real: So many real images at most; None for all.
        min_samples: Fewer samples, or real images, are refused; at least 2. None for 16.
        max_batch: Most images at once; None for no limit.
    """

    def least(self) -> int:
        """Enough for an error that is not the whole of the distance."""
        return 16

    def distance(self, features: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> Tensor:
        """The unbiased squared discrepancy."""
        n, m = len(features), len(real)
        within = (_sum(features, features) - _diagonal(features)) / (n * (n - 1))
        among = (_sum(real, real) - _diagonal(real)) / (m * (m - 1))
        return within + among - 2 * _sum(features, real) / (n * m)


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs."""
    parts = [((x[start : start + _BLOCK] @ y.T / x.shape[1] + 1) ** 3).sum() for start in range(0, len(x), _BLOCK)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _diagonal(x: Tensor) -> Tensor:
    return ((x.square().sum(dim=1) / x.shape[1] + 1) ** 3).sum()
