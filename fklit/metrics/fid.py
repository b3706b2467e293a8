"""The Frechet distance between features of samples and of real images."""

from jaxtyping import Float
from torch import Tensor, nn

from fklit.metrics.feature_distance import FeatureDistance


class CLIPFID(FeatureDistance):
    """Frechet distance between Gaussians that are fitted to image embeddings of samples and of real images.

    `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))` with unbiased covariances (Heusel et al. 2017, arXiv:1706.08500,
    equation 6), by torchmetrics, in the embeddings of any open_clip model in place of Inception's (Kynkaanniemi et al.
    2023, arXiv:2203.06026). At least 0, lower is better; numbers of different models, or numbers of samples, do not
    compare. With no more samples than the embedding has dimensions the covariance is singular and the distance says
    little: that is refused unless `min_samples` allows it.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        real: Real images: a folder of files, or a data module whose batches have images in [0, 1].
        real_split: Of a data module.
        num_real: So many real images at most; None for all.
        min_samples: Fewer samples, or real images, are refused; at least 2. None for one more than the embedding has
            dimensions.
        max_batch: Most images at once; None for no limit.
    """

    def least(self) -> int:
        """One more than there are dimensions."""
        return self._width() + 1

    def distance(self, features: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> Tensor:
        """The Frechet distance."""
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(_Given(features.shape[1]), sync_on_compute=False).to(features.device)
        metric.update(features, real=False)
        metric.update(real, real=True)
        found: Tensor = metric.compute()
        return found


class _Given(nn.Module):
    """Stands for the network of torchmetrics, which gets features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
