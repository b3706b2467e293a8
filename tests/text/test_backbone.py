"""The network against a second reading of the architecture: complex rotation, explicit softmax, one head at a time."""

import math

import pytest
import torch

from fklit.text import DiffusionTransformer, TransformerSettings, load_folder, save_folder
from fklit.text.words import build_tokenizer

SMALL = TransformerSettings(vocab_size=13, width=16, layers=2, heads=2, dropout=0.0)
PUBLISHED = TransformerSettings(
    vocab_size=13,
    width=16,
    layers=2,
    heads=2,
    dropout=0.0,
    activation="gelu",
    norm="layer",
    bias=True,
    tied=False,
    condition_width=8,
)


def random_network(settings):
    torch.manual_seed(0)
    network = DiffusionTransformer(settings).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network


def plain_forward(weights, tokens, settings):
    """Of one text, from the state dict."""
    width, heads = settings.width, settings.heads
    size = width // heads

    def norm(x, weight):
        if settings.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def linear(x, name):
        out = x @ weights[f"{name}.weight"].T
        return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out

    x = weights["embedding.weight"][tokens]
    condition = None
    if settings.condition_width:
        waves = torch.tensor([1.0] * 128 + [0.0] * 128, dtype=x.dtype)
        silu = torch.nn.functional.silu
        condition = silu(linear(silu(linear(waves, "level.0")), "level.2"))
    rates = torch.tensor([10_000.0 ** (-2 * i / size) for i in range(size // 2)], dtype=torch.float64)
    turns = torch.polar(torch.ones(()).double(), torch.arange(len(tokens)).double()[:, None] * rates)

    def turned(y):
        z = torch.complex(y[:, : size // 2], y[:, size // 2 :]) * turns
        return torch.cat([z.real, z.imag], 1)

    for layer in range(settings.layers):
        at = f"blocks.{layer}"
        m = linear(condition, f"{at}.modulation").view(6, width) if condition is not None else None
        y = norm(x, weights[f"{at}.norm1.weight"])
        y = y * (1 + m[1]) + m[0] if m is not None else y
        queries, keys, values = linear(y, f"{at}.attn_qkv").split(width, dim=1)
        mixed = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = turned(queries[:, part]) @ turned(keys[:, part]).T / math.sqrt(size)
            mixed.append(scores.softmax(1) @ values[:, part])
        y = linear(torch.cat(mixed, 1), f"{at}.attn_out")
        x = x + (m[2] * y if m is not None else y)
        y = norm(x, weights[f"{at}.norm2.weight"])
        y = linear(y * (1 + m[4]) + m[3] if m is not None else y, f"{at}.mlp.0")
        y = y.clamp(min=0) ** 2 if settings.activation == "squared_relu" else gelu(y)
        y = linear(y, f"{at}.mlp.2")
        x = x + (m[5] * y if m is not None else y)
    x = norm(x, weights["norm.weight"])
    if condition is not None:
        shift, scale = linear(condition, "modulation").view(2, width)
        x = x * (1 + scale) + shift
    return linear(x, "head")


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("settings", [SMALL, PUBLISHED], ids=["small", "published"])
class TestNetwork:
    def test_agrees_with_a_second_reading(self, settings):
        network = random_network(settings)
        tokens = torch.randint(0, 13, (3, 7))
        with torch.no_grad():
            found = network(tokens)
        for row, text in zip(found, tokens, strict=True):
            # Norms and rotation are in float32.
            expected = plain_forward(network.state_dict(), text, settings)
            torch.testing.assert_close(row, expected, rtol=2e-4, atol=2e-4)

    def test_logits_of_some_positions_are_those_of_all(self, settings):
        network = random_network(settings).float()
        tokens = torch.randint(0, 13, (3, 7))
        at = torch.rand(3, 7) < 0.4
        with torch.no_grad():
            torch.testing.assert_close(network(tokens, at), network(tokens)[at], rtol=1e-5, atol=1e-5)

    def test_learns_from_the_first_step(self, settings):
        torch.manual_seed(0)
        network = DiffusionTransformer(settings)
        network(torch.randint(0, 13, (2, 5))).square().sum().backward()
        # The last matrices start at zero: they and what the head reads have a gradient at once.
        assert all((block.attn_out.weight.grad != 0).any() for block in network.blocks)
        assert all((block.mlp[2].weight.grad != 0).any() for block in network.blocks)

    def test_folder_round_trip(self, settings, tmp_path):
        words = build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcdefghi"])
        words.save_pretrained(tmp_path / "tokenizer")
        network = random_network(settings).float()
        save_folder(network, tmp_path / "tokenizer", tmp_path / "model", dtype=torch.float32)
        loaded, tokenizer = load_folder(tmp_path / "model")
        tokens = torch.randint(0, 13, (2, 6))
        with torch.no_grad():
            assert torch.equal(loaded(tokens), network(tokens))
        assert loaded.settings == settings and not loaded.training
        assert tokenizer("a b", add_special_tokens=False).input_ids == [4, 5] and tokenizer.mask_token_id == 3


def test_the_model_that_ships_is_small_enough():
    assert sum(p.numel() for p in DiffusionTransformer(TransformerSettings()).parameters()) * 2 < 15e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 18, "heads": 4}, "expected width as a multiple of twice heads"),
        ({"layers": 0}, "expected layers of at least 1"),
        ({"dropout": 1.0}, "expected dropout in"),
        ({"norm": "batch"}, "expected norm as one of rms, layer"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TransformerSettings(**change)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a masked model"):
        load_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="got another"):
        load_folder(tmp_path)
