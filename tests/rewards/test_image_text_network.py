"""The network of ImageReward against a second reading of the published one, on its published layout."""

import pytest
import torch
from plain_blip import published_shapes, raw_reward, read, see
from plain_clip import random_weights

from fklit.rewards.image_reward_layout import rename_weights
from fklit.rewards.image_text_network import ImageTextNetwork

SIZES = {"vision": 32, "layers": 2, "patch": 8, "size": 32, "text": 24, "text_layers": 2, "inner": 48, "words": 60}
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TOKENS = torch.tensor([[7, 3, 9, 4, 5, 8], [7, 5, 2, 8, 0, 0], [7, 8, 0, 0, 0, 0]])


def build(vision, layers, patch, size, text, text_layers, inner, words, *, heads, text_heads, places=512):
    return ImageTextNetwork(
        {
            "hidden_size": vision,
            "intermediate_size": 4 * vision,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": size,
            "patch_size": patch,
            "layer_norm_eps": 1e-6,
        },
        {
            "hidden_size": text,
            "intermediate_size": inner,
            "num_hidden_layers": text_layers,
            "num_attention_heads": text_heads,
            "vocab_size": words,
            "max_position_embeddings": places,
            "layer_norm_eps": 1e-12,
        },
    )


@pytest.fixture(scope="module")
def weights():
    return random_weights(published_shapes(**SIZES))


@pytest.fixture(scope="module")
def network(weights):
    network = build(**SIZES, heads=4, text_heads=3).eval().requires_grad_(False)
    network.load_state_dict(rename_weights(weights))
    return network


def test_encoders_equal_a_second_reading(network, weights):
    seen = network.encode_images(PIXELS)
    assert torch.allclose(seen, see(PIXELS, weights, 4), atol=1e-5)
    hidden, expected = network.read(TOKENS, seen), read(TOKENS, TOKENS != 0, seen, weights, 3)
    counts = (TOKENS != 0)[..., None]
    assert torch.allclose(hidden * counts, expected * counts, atol=1e-5)


def test_scores_and_gradients_equal_a_second_reading(network, weights):
    ours, theirs = PIXELS.clone().requires_grad_(), PIXELS.clone().requires_grad_()
    scores = network(TOKENS, network.encode_images(ours))
    expected = raw_reward(TOKENS, TOKENS != 0, theirs, weights, 4, 3)
    assert expected.std() > 0.1
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_what_fills_captions_up_counts_for_nothing(network, weights):
    seen = network.encode_images(PIXELS)
    longer = torch.cat([TOKENS, torch.zeros(3, 29, dtype=torch.long)], 1)  # to the published 35
    assert torch.allclose(network(TOKENS, seen), network(longer, seen), rtol=1e-5, atol=1e-5)


def test_the_full_network_has_the_keys_and_shapes_of_the_published_file():
    """ImageReward-v1.0: BLIP with ViT-L/16 at 224 and BERT-base with cross-attention, of 30,524 words."""
    sizes = {"vision": 1024, "layers": 24, "patch": 16, "size": 224}
    texts = {"text": 768, "text_layers": 12, "inner": 3072, "words": 30524}
    with torch.device("meta"):
        network = build(**sizes, **texts, heads=16, text_heads=12)
        published = {name: torch.empty(shape) for name, shape in published_shapes().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if "position_ids" not in name}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in rename_weights(published).items()}
