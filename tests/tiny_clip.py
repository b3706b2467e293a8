"""A tiny open_clip folder with random weights."""

import json

import torch


def write_tiny_clip(folder):
    """Fills a folder as open_clip's `local-dir:` wants it (config, weights, tokenizer), and returns it."""
    import open_clip
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "a", "red", "heart", "cat", "left", "of", "dog"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 48, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
            "text_cfg": {
                "context_length": 8,
                "vocab_size": len(words),
                "hf_tokenizer_name": "local",
                "width": 16,
                "heads": 2,
                "layers": 1,
                "pool_type": "last",
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        "reward": {"typical_range": [-0.5, 0.5]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        with torch.no_grad():
            for module in model.modules():  # the identity at initialization would make all images alike
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.fill_(1.0)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
