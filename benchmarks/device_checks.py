"""Checks of a device: the precision of equilibrium propagation, of importance weights, and resampling."""

from typing import Any

import torch
from device_clock import timed
from torch import Tensor

import fklit
from fklit.eqprop import ConvNet, RecurrentBackprop, Relaxation, Symmetric
from fklit.feynman_kac import ParticleSystem, group_generators

WIDTHS, BATCH = (32, 64, 64, 64), 32
RESAMPLERS = ("systematic", "multinomial", "stratified", "residual", "ssp", "birth_death")


def equilibrium_propagation(
    device: torch.device, *, widths: tuple[int, ...] = WIDTHS, batch: int = BATCH
) -> list[dict[str, Any]]:
    """Error of the first convolution's gradient against float64, with and without TF32 in convolutions.

    Args:
        device: where to compute; TF32 exists on NVIDIA's from Ampere on, elsewhere both rows agree.
        widths: channels of the four convolutions.
        batch: number of random pictures of 32 x 32.
    """
    network = ConvNet((3, 32, 32), widths, num_classes=10, free=Relaxation(200, 1e-6)).to(device)
    x = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(10, (batch,), generator=torch.Generator().manual_seed(1)).to(device)
    exact = network.double()
    exact.free = Relaxation(2000, 1e-12)
    exact.estimator = RecurrentBackprop(relaxation=Relaxation(2000, 1e-12))
    reference = _gradient(exact, x.double(), y)
    network.float()
    network.free, network.estimator = Relaxation(200, 1e-6), Symmetric(0.1, relaxation=Relaxation(200, 1e-7))
    rows = []
    before = torch.backends.cudnn.allow_tf32
    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = tf32
        _gradient(network, x, y)
        took, found = timed(device, lambda: _gradient(network, x, y))
        error = float((found.double() - reference).norm() / reference.norm())
        rows.append({"TF32 allowed": tf32, "relative error": error, "seconds": took})
    torch.backends.cudnn.allow_tf32 = before
    return rows


def _gradient(network: Any, x: Tensor, y: Tensor) -> Tensor:
    network.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    name = next(name for name, _ in network.named_parameters() if "input" in name)
    return dict(network.named_parameters())[name].grad.clone()


def precision(device: torch.device, *, steps: int = 20) -> list[dict[str, Any]]:
    """Importance weights of the shipped text-to-image model in float32, bfloat16 and float16, from equal noise.

    Only the finished samples are weighed, so that the particles of the three runs are the same up to rounding, and so
    are their weights.
    """
    rows: list[dict[str, Any]] = []
    for dtype in ("float32", "bfloat16", "float16"):
        pipeline = fklit.PipelineSource("fklit:emoji_scenes", dtype=dtype).load().to(device).pipeline
        result = fklit.steer(
            pipeline, "a red heart", num_particles=4, potential="terminal", reward=redness, reward_scale=100.0,
            pipeline_kwargs={"num_inference_steps": steps, "eta": 1.0, "guidance_scale": 1.0},
        )  # fmt: skip
        weights = result.log_weights.exp()
        first = weights if not rows else first  # noqa: F821
        rows.append(
            {
                "dtype": dtype,
                "log_z": float(result.log_z),
                "largest weight": float(weights.max()),
                "largest difference of a weight from float32": float((weights - first).abs().max()),
                "finite": bool(result.samples.isfinite().all()),
            }
        )
    return rows


def redness(samples: Tensor) -> Tensor:
    """Mean of the first color channel of images (N, 3, H, W) or videos (N, F, 3, H, W)."""
    return samples.select(-3, 0).flatten(1).mean(dim=1)


def resampling(device: torch.device, *, particles: int = 4096) -> list[dict[str, Any]]:
    """Each resampler on the device against the CPU: equal ancestors and log Z from equal generators, and seconds."""
    potential = torch.randn(16, particles, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def update(at: torch.device, name: Any) -> tuple[Tensor, Tensor]:
        system = ParticleSystem(
            16, particles, resampler=fklit.feynman_kac.get_resampler(name), ess_threshold=1.0,
            generator=group_generators(0, 16, stream="resampling"),
        )  # fmt: skip
        ancestors = system.update(potential.to(at), may_resample=True)
        assert ancestors is not None
        return ancestors.cpu(), system.log_z.cpu()

    rows = []
    for name in RESAMPLERS:
        expected = update(torch.device("cpu"), name)
        took, found = timed(device, lambda: update(device, name))  # noqa: B023
        rows.append(
            {
                "resampler": name,
                "share of equal ancestors": float((found[0] == expected[0]).double().mean()),
                "largest difference of log Z": float((found[1] - expected[1]).abs().max()),
                "seconds": took,
            }
        )
    return rows
