"""Tiny random language models and text classifiers in folders, in the format of transformers."""

import torch

TEXTS = [
    "the king said to the people , go",
    "and he went out of the city",
    "the people went",
    "he said , the city of the king is a great city , and the people of it are many people",
    "go",
    "a great king , a great people",
]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def word_tokenizer(*, bos=True, eos=False):
    """Whole words, which may put `<s>` in front and `</s>` behind."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *sorted({word for text in TEXTS for word in text.split()})]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos or eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=("<s> " if bos else "") + "$A" + (" </s>" if eos else ""), special_tokens=[("<s>", 2), ("</s>", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def byte_tokenizer():
    """Bytes, some of them merged, as GPT-2 has it: nothing in front, spaces belong to the word behind them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def _saved(make, config, folder, tokenizer, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(config)
        for parameter in network.parameters():  # far from uniform
            torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_gpt2(folder, tokenizer=None, *, length=64, seed=0):
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tokenizer or byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=length, n_embd=16, n_layer=2, n_head=2, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    return _saved(GPT2LMHeadModel, config, folder, tokenizer, seed)


def write_llama(folder, tokenizer=None, *, seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or word_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return _saved(LlamaForCausalLM, config, folder, tokenizer, seed)


def write_text_classifier(folder, labels, *, kind="bert", problem_type=None, length=40, seed=0):
    """A classifier of the words of `TEXTS`; "gpt2" is one without a token for padding."""
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

    tokenizer = word_tokenizer(eos=kind == "bert") if kind == "bert" else byte_tokenizer()
    named = {
        "id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": problem_type, "vocab_size": len(tokenizer),
    }  # fmt: skip
    if kind == "gpt2":
        config = GPT2Config(
            n_positions=length, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None, **named
        )
        return _saved(GPT2ForSequenceClassification, config, folder, tokenizer, seed)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=length, pad_token_id=0, **named,
    )  # fmt: skip
    return _saved(BertForSequenceClassification, config, folder, tokenizer, seed)
