"""What FID and KID share: image features of all samples, of each prompt once, and of real images."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor, distributed

from fklit.checks import check_choice, check_count
from fklit.metrics.clip_features import CLIPFeatures
from fklit.metrics.prompt_mean import joined
from fklit.metrics.real_images import Split, real_images
from fklit.metrics.sample_metric import SampleMetric
from fklit.metrics.samples import SampleBatch


class FeatureDistance(SampleMetric):
    """A distance between the chosen sample of each prompt and real images, in the features of any open_clip model.

    Features are kept, float32 `(N, d)` of samples and of real images; those of the latter are computed once.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        real: Real images: a folder of files, or a data module whose batches have images in [0, 1].
        real_split: Of a data module.
        num_real: So many real images at most; None for all.
        min_samples: Fewer samples, or real images, are refused; at least 2. None for as many as it needs.
        max_batch: Most images at once; None for no limit.

    Raises:
        ValueError: `num_real` is below 1, `min_samples` below 2, or there is no such split.
    """

    higher_is_better = False
    accepts = "image"
    indices: list[Tensor]
    features: list[Tensor]
    real_features: list[Tensor]

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        *,
        real: str | LightningDataModule,
        real_split: Split = "train",
        num_real: int | None = None,
        min_samples: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("real_split", real_split, ("train", "val", "test"))
        self.real = real
        self.real_split: Split = real_split
        self.num_real = None if num_real is None else check_count("num_real", num_real)
        self.min_samples = None if min_samples is None else check_count("min_samples", min_samples, minimum=2)
        self.embed = CLIPFeatures(model_name, pretrained, max_batch=max_batch)
        self._of_real: Tensor | None = None  # this process's share, across resets
        for name in ("indices", "features", "real_features"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def least(self) -> int:
        """The least number of samples with which the distance says something; the model is loaded."""

    @abstractmethod
    def distance(self, features: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> Tensor:
        """The distance, a float64 scalar, of float64 features."""

    def load(self) -> None:
        """Loads the model, and computes the features of the real images."""
        self.embed.load()
        if self._of_real is not None:
            return
        together = distributed.is_available() and distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        shares = real_images(self.real, self.real_split, limit=self.num_real, rank=rank, world_size=world)
        with torch.inference_mode(False):  # they outlive the run
            parts = [self.embed(images.clone()) for images in shares]
        self._of_real = torch.cat(parts).cpu() if parts else torch.zeros(0, self._width())

    def check_run(self, name: str, *, num_prompts: int | None, num_particles: int | None) -> None:
        """Refuses a run of too few prompts before it starts.

        Raises:
            ValueError: There are fewer than the least number of samples, one a prompt.
        """
        self.embed.load()
        if num_prompts is not None:
            self._check(num_prompts, f"{name}, one a prompt", "give more prompts")

    def update(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> None:
        """Adds the chosen samples of B prompts, in [0, 1]."""
        self.load()
        if not self.real_features:
            assert self._of_real is not None
            self.real_features.append(self._of_real.to(self.device))
        self.indices.append(batch.indices.to(self.device))
        found = self.embed(batch.choose(samples)) if batch.prompts else torch.zeros(0, self._width())
        self.features.append(found.to(self.device, torch.float32))

    def compute(self) -> Tensor:
        """The distance, a float64 scalar.

        Raises:
            ValueError: There are too few samples or real images.
        """
        places = {int(index): place for place, index in enumerate(joined(self.indices).tolist())}
        features = joined(self.features)[[places[index] for index in sorted(places)]].double()
        real = joined(self.real_features).double()
        self._check(len(features), type(self).__name__, "sample more prompts")
        self._check(len(real), f"{type(self).__name__} (real images)", "give more of them")
        return self.distance(features, real)

    def _width(self) -> int:
        return int(self.embed(torch.zeros(1, 3, 16, 16)).shape[1])

    def _check(self, number: int, what: str, fix: str) -> None:
        least = self.least() if self.min_samples is None else self.min_samples
        if number < least:
            raise ValueError(
                f"expected at least {least} samples for {what}, got {number}; {fix}, or lower min_samples of it "
                "(CLIPKID needs fewer than CLIPFID)."
            )
