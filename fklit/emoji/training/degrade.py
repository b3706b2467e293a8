"""What happens to an image on its way through a generator: blur, noise, compression, an autoencoder."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fklit import assets


def _folder(name: str) -> Path:
    return assets.shipped(name) or Path(name)


def gaussian_blur(images: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Blurs each image with its own `sigma` (pixels; 0 leaves it as it is); the border is continued."""
    count, channels = images.shape[:2]
    reach = max(int(3 * float(sigma.max())), 1)
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3).view(-1, 1)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images.reshape(1, count * channels, *images.shape[2:]), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, weights[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, weights[:, None, None, :], groups=count * channels)
    return flat.view_as(images)


class Degrade(nn.Module):
    """Degrades images at random, each by its own draw, from torch's global random state.

    In this order: an autoencoder with noise on its latents (as imperfect sampling leaves it), blur, JPEG, noise.
    Amounts are drawn as `max * u**2` with uniform `u`, so that small ones are common.

    Args:
        blur: Largest standard deviation of the blur, in pixels.
        noise: Largest standard deviation of the pixel noise, for values in [0, 1].
        share: Probability of each of blur, noise and JPEG, in [0, 1].
        jpeg_quality: Lowest JPEG quality, 1 to 95; None for no JPEG.
        vae_folder: A diffusers folder of an `AutoencoderKL`, or that of a shipped model ("fklit:emoji_scenes/vae");
            None for none.
        vae_share: Probability of the autoencoder, in [0, 1].
        latent_noise: Largest standard deviation of the noise on the latents, in units of the latents' own.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: `vae_folder` is no autoencoder's folder.
    """

    def __init__(
        self,
        blur: float = 0.0,
        noise: float = 0.0,
        *,
        share: float = 0.5,
        jpeg_quality: int | None = None,
        vae_folder: str | None = None,
        vae_share: float = 0.3,
        latent_noise: float = 0.0,
    ) -> None:
        super().__init__()
        if min(blur, noise, latent_noise) < 0:
            raise ValueError(
                f"expected blur, noise and latent_noise of at least 0, got {blur}, {noise} and {latent_noise}; "
                "change the one that is negative."
            )
        if not (0 <= share <= 1 and 0 <= vae_share <= 1):
            raise ValueError(f"expected share and vae_share in [0, 1], got {share}, {vae_share}; give probabilities.")
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 95:
            raise ValueError(f"expected jpeg_quality from 1 to 95, got {jpeg_quality}; give None for no JPEG.")
        if vae_folder is not None and not (_folder(vae_folder) / "config.json").is_file():
            raise FileNotFoundError(
                f"expected config.json in vae_folder, got {vae_folder!r} without; give a folder saved by AutoencoderKL."
            )
        self.blur, self.noise, self.share = blur, noise, share
        self.jpeg_quality = jpeg_quality
        self.vae_folder, self.vae_share, self.latent_noise = vae_folder, vae_share, latent_noise
        self._vae: list[Any] = []  # in a list, so that checkpoints and optimizers do not see it

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Degraded copies in [0, 1]."""
        images = images.clone()
        if self.vae_folder is not None:
            chosen = self._chosen(images, self.vae_share)
            if chosen.any():
                images[chosen] = self.reconstruct(images[chosen])
        if self.blur:
            images = gaussian_blur(images, self._amount(images, self.blur))
        if self.jpeg_quality is not None:
            self._compress(images, self.jpeg_quality)
        if self.noise:
            images = images + self._amount(images, self.noise).view(-1, 1, 1, 1) * torch.randn_like(images)
        return images.clamp(0, 1)

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The images through the autoencoder, with noise on the latents."""
        if not self._vae:
            from diffusers import AutoencoderKL

            assert self.vae_folder is not None
            vae = AutoencoderKL.from_pretrained(_folder(self.vae_folder), dtype=torch.float32)
            self._vae.append(vae.requires_grad_(False).eval())
        vae = self._vae[0].to(images.device)
        latents = vae.encode(images * 2 - 1).latent_dist.mode()
        if self.latent_noise:
            # 1 / scaling_factor is the standard deviation of the latents
            amount = torch.rand(len(images), 1, 1, 1, device=images.device).square() * self.latent_noise
            latents = latents + amount / vae.config.scaling_factor * torch.randn_like(latents)
        decoded: Tensor = vae.decode(latents).sample
        return (decoded.to(images.dtype) / 2 + 0.5).clamp(0, 1)

    def _chosen(self, images: Tensor, share: float) -> Tensor:
        return torch.rand(len(images), device=images.device) < share

    def _amount(self, images: Tensor, largest: float) -> Tensor:
        amount = largest * torch.rand(len(images), device=images.device).square()
        return torch.where(self._chosen(images, self.share), amount, 0.0)

    def _compress(self, images: Tensor, lowest: int) -> None:
        for index in self._chosen(images, self.share).nonzero().flatten().tolist():
            pixels = (images[index].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=int(torch.randint(lowest, 96, ())))
            with Image.open(file) as picture:
                decoded = torch.from_numpy(np.array(picture))
            images[index] = decoded.permute(2, 0, 1).to(images) / 255
