"""Tiny random text pipelines of diffusers: the pipelines' own classes around networks of transformers."""

import torch

WORDS = ["<pad>", "<mask>", "</s>", "<s>", "a", "b", "c", "d", "e", "f", "g", "the", "cat", "dog"]
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def word_tokenizer(words=WORDS, *, chat=None):
    """Whole words; nothing in front and nothing behind."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", mask_token="<mask>", eos_token="</s>", bos_token="<s>",
        unk_token="<pad>", chat_template=chat,
    )  # fmt: skip


def _drawn(network, spread, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=spread) if parameter.ndim > 1 else None
    return network.eval().requires_grad_(False)


def tiny_llada2(folder=None, *, words=WORDS, spread=0.4, seed=0, chat=None, **scheduler):
    """`LLaDA2Pipeline` around a bidirectional network: LLaDA2's own comes with its weights, as remote code."""
    from diffusers import BlockRefinementScheduler, LLaDA2Pipeline
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    pipeline = LLaDA2Pipeline(
        model=_drawn(BertForMaskedLM(config), spread, seed), tokenizer=word_tokenizer(words, chat=chat),
        scheduler=BlockRefinementScheduler(**{"block_length": 4, **scheduler}),
    )  # fmt: skip
    return _ready(pipeline, folder)


def tiny_diffusion_gemma(folder=None, *, words=WORDS, canvas=4, spread=0.3, seed=0, scheduler=None, window=6):
    """`DiffusionGemmaPipeline` around its own network; a tokenizer is its processor."""
    from diffusers import BlockRefinementScheduler, DiffusionGemmaPipeline
    from transformers import (
        DiffusionGemmaConfig,
        DiffusionGemmaForBlockDiffusion,
        DiffusionGemmaTextConfig,
        Gemma4VisionConfig,
    )

    text = DiffusionGemmaTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, global_head_dim=8, num_global_key_value_heads=1, sliding_window=window,
        layer_types=["sliding_attention", "full_attention"], num_experts=2, top_k_experts=1, moe_intermediate_size=8,
        max_position_embeddings=128, pad_token_id=0, eos_token_id=2, bos_token_id=3,
    )  # fmt: skip
    vision = Gemma4VisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8,
    )  # fmt: skip
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=canvas)
    pipeline = DiffusionGemmaPipeline(
        model=_drawn(DiffusionGemmaForBlockDiffusion(config), spread, seed), processor=word_tokenizer(words, chat=CHAT),
        scheduler=scheduler or BlockRefinementScheduler(),
    )  # fmt: skip
    return _ready(pipeline, folder)


def _ready(pipeline, folder):
    pipeline.set_progress_bar_config(disable=True)
    if folder is not None:
        pipeline.save_pretrained(folder)
    return pipeline
