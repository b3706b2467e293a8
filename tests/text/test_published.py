"""The published layout and masked language models of transformers, with tiny random weights."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    EsmTokenizer,
    PreTrainedTokenizerFast,
)

import fklit
from fklit.text import MaskedTextModel, TextSampling, load_published

WIDTH, BLOCKS, HEADS, CONDITION, VOCABULARY = 16, 2, 2, 8, 9
CONFIG = {
    "vocab_size": VOCABULARY, "hidden_dim": WIDTH, "cond_dim": CONDITION, "n_blocks": BLOCKS, "n_heads": HEADS,
    "dropout": 0.1, "time_conditioning": False, "model_length": 64, "model_type": "mdlm",
}  # fmt: skip


class Layers(nn.Module):
    """Modules under the published names, and their forward pass, written from the paper's description."""

    def __init__(self):
        super().__init__()
        self.vocab_embed = nn.ParameterDict({"embedding": torch.randn(VOCABULARY, WIDTH)})
        self.sigma_map = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(256, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION))}
        )
        self.rotary_emb = nn.Module()
        self.rotary_emb.register_buffer("inv_freq", 10_000.0 ** -(torch.arange(0, 8, 2) / 8))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": weight_only(), "norm2": weight_only(),
                "attn_qkv": nn.Linear(WIDTH, 3 * WIDTH, bias=False), "attn_out": nn.Linear(WIDTH, WIDTH, bias=False),
                "mlp": nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"), nn.Linear(4 * WIDTH, WIDTH)),
                "adaLN_modulation": nn.Linear(CONDITION, 6 * WIDTH),
            })
            for _ in range(BLOCKS)
        )  # fmt: skip
        self.output_layer = nn.ModuleDict({
            "norm_final": weight_only(), "linear": nn.Linear(WIDTH, VOCABULARY),
            "adaLN_modulation": nn.Linear(CONDITION, 2 * WIDTH),
        })  # fmt: skip

    def forward(self, tokens):
        x = self.vocab_embed["embedding"][tokens]
        zero = torch.cat([torch.cos(torch.zeros(128)), torch.sin(torch.zeros(128))])
        c = nn.functional.silu(self.sigma_map["mlp"](zero))
        angles = torch.arange(tokens.shape[1])[:, None] * self.rotary_emb.inv_freq
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

        def turned(y):
            half = torch.cat([-y[..., 4:], y[..., :4]], -1)
            return y * cos + half * sin

        for block in self.blocks:
            shift1, scale1, gate1, shift2, scale2, gate2 = block["adaLN_modulation"](c).chunk(6)
            y = block["attn_qkv"](block["norm1"](x) * (1 + scale1) + shift1)
            q, k, v = y.unflatten(-1, (3, HEADS, 8)).permute(2, 0, 3, 1, 4)
            attention = (turned(q) @ turned(k).transpose(-1, -2) / 8**0.5).softmax(-1)
            x = x + gate1 * block["attn_out"]((attention @ v).transpose(1, 2).flatten(2))
            x = x + gate2 * block["mlp"](block["norm2"](x) * (1 + scale2) + shift2)
        shift, scale = self.output_layer["adaLN_modulation"](c).chunk(2)
        return self.output_layer["linear"](self.output_layer["norm_final"](x) * (1 + scale) + shift)


def weight_only():
    return nn.LayerNorm(WIDTH, bias=False)


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(0)
    layers = Layers()
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    save_file({f"backbone.{name}": value.contiguous() for name, value in layers.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path, layers


def test_the_published_layout_gives_the_logits_of_a_second_reading(published):
    folder, layers = published
    network = load_published(str(folder))
    tokens = torch.randint(0, VOCABULARY, (3, 7))
    with torch.no_grad():
        torch.testing.assert_close(network(tokens), layers(tokens), rtol=1e-4, atol=1e-4)


def test_the_published_model_is_steered_with_its_tokenizer(published, tmp_path):
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", *"abcde"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Like that of GPT-2 it has no mask.
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(tmp_path / "words")  # fmt: skip
    made = MaskedTextModel.from_published(
        str(published[0]), str(tmp_path / "words"), sampling=TextSampling(length=5, num_steps=5)
    )  # fmt: skip
    assert made.mask == VOCABULARY - 1 and made.never == (0, 1, 2)
    result = fklit.steer(made, "a b", reward=lambda texts: [float(text.count("c")) for text in texts], reward_scale=2.0)
    assert all(text.startswith("a b") and "<" not in text for text in result.items[0])


def test_other_models_are_refused(published):
    folder, _ = published
    for change, message in (
        ({"time_conditioning": True}, "expected time_conditioning=false"),
        ({"n_blocks": 3}, "that are missing, unknown or of another shape"),
        ({"hidden_dim": None}, "got one without hidden_dim"),
    ):
        config = {name: value for name, value in (CONFIG | change).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            load_published(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors"):
        load_published(str(folder))


def bert_words(folder, mask_token="[MASK]"):
    """A tokenizer of 11 words in a folder."""
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token=mask_token,
    ).save_pretrained(folder)  # fmt: skip


SIZE = {"vocab_size": 11, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "esm"])
def test_masked_language_models_of_transformers_are_denoisers(kind, tmp_path):
    bert_words(tmp_path)
    torch.manual_seed(0)
    if kind == "bert":
        network = BertForMaskedLM(BertConfig(**SIZE)).eval()
    else:
        network = EsmForMaskedLM(
            EsmConfig(**SIZE, mask_token_id=4, position_embedding_type="rotary", token_dropout=False)
        ).eval()  # fmt: skip
    network.save_pretrained(tmp_path)
    made = MaskedTextModel.from_masked_lm(str(tmp_path), sampling=TextSampling(length=6, num_steps=6))
    assert made.never == (0, 1, 2, 3) and (made.denoiser.before, made.denoiser.after) == ((2,), (3,))
    tokens = made.encode(["a b", ""], 6)
    with torch.no_grad():
        found = made.denoiser(tokens, tokens == 4)
        whole = torch.nn.functional.pad(torch.nn.functional.pad(tokens, (1, 0), value=2), (0, 1), value=3)
        expected = network(input_ids=whole).logits[:, 1:-1][tokens == 4]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    reward = {"reward": lambda texts: [float(text.count("c")) for text in texts], "reward_scale": 1.0}
    result = fklit.steer(made, ["a b", ""], num_particles=3, **reward)
    assert all(text.startswith("a b") and len(text.split()) == 6 for text in result.items[0])
    assert AutoTokenizer.from_pretrained(tmp_path).mask_token_id == 4


def test_masked_language_models_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(OSError, match=r"expected a tokenizer in '.*nothing', got OSError \(.*\); give a folder"):
        MaskedTextModel.from_masked_lm(str(tmp_path / "nothing"))
    bert_words(tmp_path)
    with pytest.raises(OSError, match="expected a masked language model in"):
        MaskedTextModel.from_masked_lm(str(tmp_path))
    BertForMaskedLM(BertConfig(**SIZE)).save_pretrained(tmp_path)
    made = MaskedTextModel.from_masked_lm(str(tmp_path))
    assert len(made.sample("a")[0][0].split()) == 32
    with pytest.raises(ValueError, match="expected texts of at most 38 tokens, which BertForMaskedLM takes beside 2"):
        fklit.steer(made, "a", reward=len, reward_scale=1.0, pipeline_kwargs={"length": 39})
    BertForMaskedLM(BertConfig(**SIZE | {"vocab_size": 10})).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a tokenizer of at most the network's 10 tokens, got 11"):
        MaskedTextModel.from_masked_lm(str(tmp_path))
    bert_words(tmp_path, mask_token=None)
    with pytest.raises(ValueError, match=r"expected a tokenizer with a mask, got .* without"):
        MaskedTextModel.from_masked_lm(str(tmp_path))


def test_amino_acids_that_the_tokenizer_of_esm_does_not_know_are_named(tmp_path):
    words = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSE", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = EsmTokenizer(str(tmp_path / "vocab.txt"))  # in Python: without places in the text
    made = MaskedTextModel(lambda tokens, at: torch.zeros(int(at.sum()), 11), tokenizer)
    assert made.encode(["LA"], 4).tolist() == [[4, 5, 10, 10]]
    with pytest.raises(ValueError, match="expected words that the tokenizer knows, got '7' in the prompt 'LA7'"):
        made.encode(["LA7"], 4)
