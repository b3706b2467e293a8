"""A trained network as an image classifier on disk, and its classes as a reward."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit import assets
from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.hyperparameters import describe
from fklit.rewards import ImageClassifier
from fklit.rewards.labeled_network import LabeledNetwork

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class ConvergedLogits(nn.Module):
    """Logits of a network's fixed point; NaN for a sample that has not reached it.

    Args:
        network: With a readout.
    """

    def __init__(self, network: EquilibriumNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Float[Tensor, "n classes"]:
        """Relax and read; the gradient that reaches x is that of the network's estimator."""
        network = self.network
        equilibrium = network.free_equilibrium(x)
        state = network.attach(equilibrium, x=x) if x.requires_grad else equilibrium.state
        return network.read(state).masked_fill(~equilibrium.result.converged[:, None], torch.nan)


class PixelsToInput(nn.Module):
    """Images in [0, 1] to the input of a network: averaged to its size, normalized channel by channel.

    Args:
        input_shape: Of the network: (channels, height, width) with 1 or 3 channels, or (height, width).
        mean: Of each channel.
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Input `(n, *input_shape)`, float32."""
        pixels = F.interpolate(images.float(), self.input_shape[-2:], mode="area")
        if len(self.mean) == 1:
            pixels = pixels.mean(1, keepdim=True)
        return ((pixels - self.mean.float()) / self.std.float()).view(len(images), *self.input_shape)


def save_classifier(
    network: EquilibriumNetwork,
    folder: str | Path,
    *,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write a trained network for `EquilibriumClassifier`: `config.json` and `model.safetensors`.

    Args:
        network: Of images, with a readout.
        folder: Where to; made if it does not exist.
        labels: Names of the classes, in the order of the readout.
        mean: Of each channel of pixels in [0, 1], as in training.
        std: Of each channel, above 0.

    Raises:
        ValueError: If the network has no readout or takes no images, or a number does not fit it.
    """
    from safetensors.torch import save_file

    if network.readout is None:
        raise ValueError("expected a network with a readout, got none; train one with num_classes.")
    shape = tuple(network.input_shape)
    channels = 1 if len(shape) == 2 else shape[0]
    if len(shape) not in (2, 3) or channels not in (1, 3):
        raise ValueError(f"expected a network of images of 1 or 3 channels, got input_shape={shape}.")
    if len(labels) != network.readout.out_features:
        raise ValueError(f"expected {network.readout.out_features} labels, one for each class, got {len(labels)}.")
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise ValueError(f"expected mean and std above 0 of {channels} channel(s), got mean={mean} and std={std}.")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    config = {"network": describe(network), "labels": list(labels), "mean": list(mean), "std": list(std)}
    (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: value.contiguous().cpu() for name, value in network.state_dict().items()}, target / WEIGHTS)


def load_classifier(folder: str | Path) -> LabeledNetwork:
    """Read what `save_classifier` wrote.

    Args:
        folder: Its folder, or "fklit:" and the name of a shipped one.

    Raises:
        OSError: A file is missing.
        ValueError: The files hold no such network, or weights of another one.
    """
    from jsonargparse import ArgumentParser
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = assets.shipped(str(folder)) or Path(folder).expanduser()
    missing = [name for name in (CONFIG, WEIGHTS) if not (place / name).is_file()]
    if missing:
        raise OSError(f"expected {missing[0]} in {place}, got no such file; write the folder by save_classifier.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(EquilibriumNetwork, "network")
    try:
        config: dict[str, Any] = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        network = parser.instantiate(parser.parse_object({"network": config["network"]})).network
        network.load_state_dict(load_file(place / WEIGHTS))
        preprocess = PixelsToInput(network.input_shape, config["mean"], config["std"])
        labels = tuple(map(str, config["labels"]))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(
            f"expected a network that save_classifier wrote, got {place} ({said}); write it again."
        ) from None
    return LabeledNetwork(ConvergedLogits(network), preprocess, labels, False)


class EquilibriumClassifier(ImageClassifier):
    """Log probability of a class under a network that was trained by equilibrium propagation, in nats, -inf to 0.

    All else is as in `fklit.rewards.ImageClassifier`. Images are averaged to the size of the network's input. An image
    whose activities have not converged within the network's free phase has no score: it is NaN, and the run's `on_nan`
    says what then. The gradient that reaches the pixels is the estimate of the network's estimator: exact only as far
    as its weights are symmetric.

    ```python
    EquilibriumClassifier("fklit:emoji_eqprop", "green heart")
    ```

    Args:
        model_name: Folder that `save_classifier` or `fklit.callbacks.ClassifierExport` has written, or "fklit:" and the
            name of a shipped one.
        label: Name or number of the class; None to read it from the metadata of each prompt.
        metadata_key: Where metadata holds the class of a prompt, a name or a number, if `label` is None.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `fklit.rewards.Reward`).
    """

    def __init__(
        self,
        model_name: str,
        label: int | str | None = None,
        *,
        metadata_key: str = "class",
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(model_name, label, metadata_key=metadata_key, max_batch=max_batch, pad=pad)

    def load_network(self) -> LabeledNetwork:
        """The network of the folder."""
        return load_classifier(self.model_name)
