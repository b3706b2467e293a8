"""Classifiers of images with named labels, from transformers or torchvision."""

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit.rewards.image_text_cosine import as_rgb
from fklit.rewards.pretrained import ProcessorPreprocess, load_pretrained

_TORCHVISION = "torchvision:"


class LabeledNetwork(nn.Module):
    """A network that gives a logit for each of its labels, with the preprocessing that belongs to it.

    Args:
        network: From preprocessed images to logits (n, labels).
        preprocess: From images in [0, 1] to those.
        labels: Names by number.
        multi_label: Whether labels are independent (a sigmoid each) instead of exclusive (one softmax).

    Attributes:
        labels: Names by number.
        multi_label: Whether labels are independent.
    """

    def __init__(
        self, network: nn.Module, preprocess: Callable[[Tensor], Tensor], labels: tuple[str, ...], multi_label: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocess = preprocess
        self.labels = labels
        self.multi_label = multi_label

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n labels"]:
        """Logits of images in [0, 1] with three channels or one, in float32 or float64."""
        pixels = self.preprocess(as_rgb(images))
        found = self.network(pixels.to(next(self.network.parameters()).dtype))
        logits: Tensor = found if isinstance(found, Tensor) else found.logits
        return logits if logits.dtype == torch.float64 else logits.float()

    def log_probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n labels"]:
        """Logarithms of the probability of each label, at most 0."""
        logits = self(images)
        return F.logsigmoid(logits) if self.multi_label else logits.log_softmax(-1)


def load_labeled_network(name: str, *, owner: str, cache_dir: str | None = None) -> LabeledNetwork:
    """A classifier by its name.

    Args:
        name: "owner/name" of the hub or a local folder in the format of transformers, or "torchvision:" and the name of
            weights, such as "torchvision:ResNet50_Weights.IMAGENET1K_V2".
        owner: The reward that asks, for messages.
        cache_dir: Where downloads from the hub are kept; None for the default.

    Raises:
        ValueError: It is no classifier, or torchvision has no such weights.
        OSError: It could not be loaded.
    """
    if name.startswith(_TORCHVISION):
        if cache_dir is not None:
            raise ValueError(
                f"{owner} expected no cache_dir with weights of torchvision, got {cache_dir!r}; set the environment "
                "variable TORCH_HOME."
            )
        return _from_torchvision(name.removeprefix(_TORCHVISION), owner)
    return _from_transformers(name, owner, cache_dir)


def _from_transformers(name: str, owner: str, cache_dir: str | None) -> LabeledNetwork:
    from transformers import AutoModelForImageClassification

    network = load_pretrained(AutoModelForImageClassification, name, owner=owner, cache_dir=cache_dir)
    named: dict[int, str] = network.config.id2label
    if network.config.problem_type == "regression" or len(named) < 2:
        raise ValueError(
            f"{owner} expected a classifier with two labels or more, got {name}, which has {len(named)} and the "
            f"problem type {network.config.problem_type!r}; choose another model."
        )
    labels = tuple(named[number] for number in range(len(named)))
    preprocess = ProcessorPreprocess(name, owner=owner, cache_dir=cache_dir)
    return LabeledNetwork(network, preprocess, labels, network.config.problem_type == "multi_label_classification")


def _from_torchvision(name: str, owner: str) -> LabeledNetwork:
    from torchvision import models

    try:
        weights = models.get_weight(name)
        kind = type(weights)
        model = next(m for m in models.list_models(module=models) if models.get_model_weights(m) is kind)
    except (ValueError, AttributeError, KeyError, StopIteration) as error:
        raise ValueError(
            f"{owner} expected classifier weights of torchvision, such as 'ResNet50_Weights.IMAGENET1K_V2', got "
            f"{name!r}; torchvision.models lists them."
        ) from error
    try:
        # Read without running code first (torchvision has no such option), from the file that it then reads again.
        weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        network = models.get_model(model, weights=weights, progress=False)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise OSError(
            f"{owner} expected the weights {name} of torchvision, got {type(error).__name__} ({said}); check the "
            f"connection, or download {weights.url} to hub/checkpoints below TORCH_HOME."
        ) from error
    preprocess = TorchvisionPreprocess(weights.transforms())
    return LabeledNetwork(network.eval(), preprocess, tuple(weights.meta["categories"]), False)


class TorchvisionPreprocess(nn.Module):
    """A preset of torchvision on batches in [0, 1], with overshoot of bicubic kernels clipped as in bytes.

    Args:
        preset: `weights.transforms()` of a classifier.
    """

    low: Tensor
    high: Tensor

    def __init__(self, preset: Any) -> None:
        super().__init__()
        self.preset = preset
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preset.mean, preset.std))
        # What black and white become: all that comes after resizing acts on single pixels.
        self.register_buffer("low", (0 - mean) / std, persistent=False)
        self.register_buffer("high", (1 - mean) / std, persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Images in [0, 1] to what the model takes, in float32."""
        pixels: Tensor = self.preset(images.float())
        return pixels.clamp(self.low.float(), self.high.float())
