"""Training of experts: denoising score matching with the preconditioning, weights and noise levels of EDM."""

import math
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.correctors.targets.denoiser_base import Denoiser
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine


class ScoreModelTask(LightningModule):
    """Trains a denoiser of vectors, whose score is an expert of correctors on any noise path.

    The loss is `E[(sigma^2 + s^2) / (sigma s)^2 |D(x_0 + sigma e, sigma) - x_0|^2]` with `log sigma` normal (Karras et
    al. 2022, arXiv 2206.00364, table 1), s being the standard deviation of the data: 1 for the best linear denoiser of
    Gaussian data, and not much less where noise is low. Average the weights with Lightning's `EMAWeightAveraging`.
    Batches are tensors (n, d), or dictionaries with one under "x".

    Where the gradient of the data's log density is known, as with samples of an energy, give `target_score_std`: with
    `c = v / (v + sigma^2)` the denoiser is fitted to `(1 - c) x_0 + c (x + sigma^2 g)` in place of `x_0`, x being the
    noisy vector and g the gradient at `x_0` (target score matching, De Bortoli et al. 2024, arXiv 2402.08667, section
    3). The mean of either given x is the exact denoiser, for every v. Where noise is low the variance of `x_0` hides
    the score, and that of g does not; for Gaussian data of variance v the mixture has no variance at any noise level.

    Args:
        denoiser: The network.
        log_sigma_mean: Mean of the log of the noise level.
        log_sigma_std: Its standard deviation, positive.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        target_score_std: The root of v, positive, in the units of the data: the standard deviation of the data in their
            stiff directions. Batches then have the gradients (n, d) under "score". None fits to the data alone.
        export_dir: Folder to write at the end of `fit`; None for none. `Denoiser.load` and
            `fklit.correctors.TrainedExpert` read it, or a checkpoint.
        start_from: A folder that was exported, or a checkpoint, whose weights `fit` starts from; None for random ones.
            A checkpoint that is given (`--ckpt_path`) has the last word.

    Raises:
        ValueError: If a number is out of its range, or (in `setup`) the denoiser is not of the shape of `start_from`.
        FileNotFoundError: There is no denoiser in `start_from` (in `setup`).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        log_sigma_mean: float = -1.0,
        log_sigma_std: float = 1.4,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        target_score_std: float | None = None,
        export_dir: str | None = None,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        if not log_sigma_std > 0 or not learning_rate > 0 or warmup_steps < 0:
            raise ValueError(
                "expected a positive log_sigma_std and learning_rate and no negative warmup_steps, got "
                f"log_sigma_std={log_sigma_std}, learning_rate={learning_rate}, warmup_steps={warmup_steps}; fix these."
            )
        if target_score_std is not None and not 0 < target_score_std < math.inf:
            raise ValueError(
                f"expected a positive target_score_std or None, got {target_score_std}; it is a standard deviation."
            )
        self.denoiser = denoiser
        self.target_score_std = target_score_std
        self.log_sigma_mean, self.log_sigma_std = log_sigma_mean, log_sigma_std
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.export_dir, self.start_from = export_dir, start_from

    def setup(self, stage: str) -> None:
        """Reads the weights to start from."""
        if stage != "fit" or self.start_from is None:
            return
        known, mine = Denoiser.load(self.start_from), self.denoiser.description()
        if known.description() != mine:
            raise ValueError(
                f"expected the denoiser in {self.start_from} to have the settings {mine}, got {known.description()}; "
                "set `denoiser` to those, or leave `start_from` out."
            )
        self.denoiser.load_state_dict(known.state_dict())

    def loss(
        self,
        x: Float[Tensor, "n d"],
        log_sigma: Float[Tensor, " n"],
        noise: Float[Tensor, "n d"],
        score: Float[Tensor, "n d"] | None = None,
    ) -> Tensor:
        """The weighted error at given levels and noise, a mean over vectors and coordinates.

        Args:
            x: The data.
            log_sigma: Logs of the noise levels.
            noise: Standard normal numbers.
            score: Gradients of the data's log density at x, with `target_score_std`.
        """
        sigma = log_sigma.exp()
        std = self.denoiser.data_std
        weight = (sigma.square() + std**2) / (sigma * std).square()
        noisy = x + sigma.unsqueeze(1) * noise
        error = self.denoiser(noisy, sigma) - self.regression_target(x, noisy, sigma, score)
        mean: Tensor = (weight.unsqueeze(1) * error.square()).mean()
        return mean

    def regression_target(
        self,
        x: Float[Tensor, "n d"],
        noisy: Float[Tensor, "n d"],
        sigma: Float[Tensor, " n"],
        score: Float[Tensor, "n d"] | None,
    ) -> Float[Tensor, "n d"]:
        """What the denoiser is fitted to: vectors whose mean given the noisy ones is the exact denoiser."""
        if self.target_score_std is None:
            return x
        assert score is not None
        variance = sigma.square().unsqueeze(1)
        share = self.target_score_std**2 / (self.target_score_std**2 + variance)
        # Tweedie: the exact denoiser is the noisy vector plus sigma^2 times the mean of the data's score.
        return x + share * (noisy + variance * score - x)

    def training_step(self, batch: Tensor | dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step; logs `train/loss`."""
        x, score = self._vectors(batch)
        log_sigma = self.log_sigma_mean + self.log_sigma_std * torch.randn(x.shape[0], device=x.device, dtype=x.dtype)
        loss = self.loss(x, log_sigma, torch.randn_like(x), score)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor | dict[str, Tensor], batch_idx: int) -> None:
        """Logs `val/loss`, at levels and noise that are the same in every epoch."""
        x, score = self._vectors(batch)
        generator = torch.Generator().manual_seed(batch_idx)
        standard = torch.randn(x.shape[0], generator=generator).to(x)
        noise = torch.randn(x.shape, generator=generator).to(x)
        loss = self.loss(x, self.log_sigma_mean + self.log_sigma_std * standard, noise, score)
        self.log("val/loss", loss, batch_size=x.shape[0], prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=self.learning_rate)
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the shape of the denoiser, so that `Denoiser.load` reads the checkpoint by itself."""
        checkpoint["denoiser"] = self.denoiser.description()

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.denoiser.save(self.export_dir)

    def _vectors(self, batch: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Data and, with `target_score_std`, their scores."""
        x = batch["x"] if isinstance(batch, dict) else batch
        if not isinstance(x, Tensor) or x.ndim != 2:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"expected vectors (n, d), or a dictionary with them under 'x', got a batch of {found}; reshape it."
            )
        if self.target_score_std is None:
            return x, None
        score = batch.get("score") if isinstance(batch, dict) else None
        if score is None or score.shape != x.shape:
            scores_found = "none" if score is None else f"one of shape {tuple(score.shape)}"
            raise ValueError(
                f"expected gradients of the log density, {tuple(x.shape)}, under 'score' of the batch with "
                f"target_score_std, got {scores_found}; add them (ClusterDataModule(scores=True) does), or pass None."
            )
        return x, score
