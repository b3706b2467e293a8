"""RFD4-Proteina of diffusers with random weights of a few numbers, and features of short chains."""

from typing import Any

import torch

STEPS, TOKENS, TYPES = 8, 5, 6


def tiny_proteina(**schedule: float) -> Any:
    """A pipeline of 8 steps; both schedulers draw noise, each by its own rule."""
    from diffusers import (
        RFD4ProteinaAutoencoder,
        RFD4ProteinaPipeline,
        RFD4ProteinaScheduler,
        RFD4ProteinaTransformer,
    )

    torch.manual_seed(0)
    shared: dict[str, Any] = {
        "nlayers": 1, "token_dim": 8, "nheads": 2, "dim_cond": 8, "pair_repr_dim": 4, "latent_dim": 3,
        "token_type_emb_dim": 4,
    }  # fmt: skip
    transformer = RFD4ProteinaTransformer(
        **shared, t_emb_dim=8, xt_pair_dist_dim=4, tri_mult_c=4, num_sequence_classes=TYPES,
        feats_seq=("xt_bb_ca", "xt_local_latents", "token_type", "coord_group_seq"),
        feats_cond_seq=("time_emb_bb_ca", "time_emb_local_latents", "recycle_remaining"),
        feats_pair_repr=("xt_bb_ca_pair_dists",), feats_pair_cond=(),
    )  # fmt: skip
    vae = RFD4ProteinaAutoencoder(
        atom37_mask=[[True] * 4 + [False] * 33] * TYPES, allowed_residue_types=[[True] * TYPES] * 7, **shared,
        n_residue_types=TYPES, encoder_feats_seq=("token_type", "x1_a37coors_nm"),
    )  # fmt: skip
    times: dict[str, Any] = {"tail_steps": 2, "tsr_k": 1.2, "tsr_sigma": 0.8, **schedule}
    pipeline = RFD4ProteinaPipeline(
        transformer.eval(), vae.eval(), RFD4ProteinaScheduler("log", "1/t", **times),
        RFD4ProteinaScheduler("power", "tan", **times), recycle_depths=[2, *[1] * (STEPS - 1)],
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def chain_features(rows: int = 2) -> dict[str, torch.Tensor]:
    """Features of chains; the last token of the second one is padding, its first is given."""
    padding = torch.ones(rows, TOKENS, dtype=torch.bool)
    context = torch.zeros(rows, TOKENS, dtype=torch.bool)
    if rows > 1:
        padding[1, -1], context[1, 0] = False, True
    groups = torch.full((rows, TOKENS, 37), -1)
    groups[:, 0, 1], groups[:, 1, 1], groups[:, 2, 1] = 0, 1, 2  # three, so that their labels are drawn
    return {
        "padding_mask": padding,
        "is_in_context_conditioning": context,
        "supports_local_latent": padding.clone(),
        "token_type": torch.zeros(rows, TOKENS, dtype=torch.long),
        "condition_sequence_1_residue": torch.zeros(rows, TOKENS, dtype=torch.long),
        "condition_CoordinateGroup_1_atom": groups,
        "molecule_iid": torch.zeros(rows, TOKENS, dtype=torch.long),
    }


def call_of(features: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Arguments of a call with these features."""
    plain = ("padding_mask", "is_in_context_conditioning", "supports_local_latent", "token_type")
    rest = {name: value for name, value in features.items() if name not in plain}
    return {name: features[name] for name in plain} | {"conditioning_features": rest}
