"""A vision-language model of transformers that is asked about images: how likely is an answer?"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WeightType = Literal["auto", "float32", "bfloat16", "float16"]

_KERNELS = {2: "bilinear", 3: "bicubic"}  # by PIL's numbers, which processors keep


class VisionLanguageModel(nn.Module):
    """Model and processor, with the log probability of one-word answers.

    Images go through the model's own processor, as float tensors wherever it runs on torchvision, so that gradients
    reach the pixels. There the result equals that of its usual way over bytes up to their rounding.

    Args:
        name: Hub id, or a folder, of a model that `AutoModelForImageTextToText` loads, with a processor that has a chat
            template.
        dtype: Precision of the weights, "auto" for that of the checkpoint.
        revision: Branch, tag or commit at the hub; None for the newest.

    Raises:
        OSError: There is no such model, or it could not be downloaded.
        ValueError: Weights are missing, it has no chat template, or it is an encoder-decoder.

    Attributes:
        differentiable: Whether gradients reach the pixels.
    """

    def __init__(self, name: str, *, dtype: WeightType, revision: str | None) -> None:
        super().__init__()
        from safetensors import SafetensorError
        from transformers import AutoModelForImageTextToText, AutoProcessor

        chosen = dtype if dtype == "auto" else getattr(torch, dtype)
        try:
            model, loaded = AutoModelForImageTextToText.from_pretrained(
                name, dtype=chosen, revision=revision, output_loading_info=True
            )
            self._processor = AutoProcessor.from_pretrained(name, revision=revision)
        except (OSError, ValueError, SafetensorError) as error:  # transformers says the rest on further lines
            said = str(error).strip().partition("\n")[0][:160] or type(error).__name__
            raise OSError(
                f"expected a vision-language model that transformers loads, got {name!r} ({said}); fix the name, check "
                "the connection, or download it and give the folder."
            ) from error
        missing = sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])})
        if missing:
            raise ValueError(
                f"expected all weights of {name}, got a checkpoint without {len(missing)} of them ({missing[0]}, ...); "
                "download it again, or give another."
            )
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"expected a decoder that goes on from its chat template, got {name}; give another model.")
        self.model = model.eval()
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(f"expected a processor with a chat template, got that of {name}; give a model for chats.")
        self._name = name
        self._tokens: dict[str, int | None] = {}
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"  # the answer begins behind the last token of every row
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        parameters = inspect.signature(model.forward).parameters
        self.differentiable = self._takes_floats()
        self._options = {"use_cache": False, **({"logits_to_keep": 1} if "logits_to_keep" in parameters else {})}

    def log_probability(
        self, images: Float[Tensor, "n c h w"], questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> Float[Tensor, " n"]:
        """Return the log probability that the reply to each question begins with an answer, (n,) float32 or float64.

        The probability is that of the first new token, over the whole vocabulary, and is summed over the answers and
        over both forms of each, with and without a space in front. Those that are no single token are left out.

        Args:
            images: One a question, 1 or 3 channels, in [0, 1].
            questions: n texts.
            answers: What counts as an answer to each, n lists of words.

        Raises:
            ValueError: No answer is a single token, or gradients are asked for and cannot be had.
        """
        tokens = [self.answer_tokens(words) for words in answers]
        # Constants that processors and models keep for later calls must not be made in inference mode.
        gradients = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            inputs = self._inputs(images, questions)
        logits = self.model(**inputs, **self._options).logits[:, -1]  # of the first new token
        logs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
        found = torch.stack([row[ids].logsumexp(0) for row, ids in zip(logs, tokens, strict=True)])
        broken = ~torch.isfinite(images).flatten(1).all(1)  # a byte cannot hold NaN
        return found.masked_fill(broken.to(found.device), torch.nan)

    def _inputs(self, images: Tensor, questions: Sequence[str]) -> dict[str, Any]:
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if not self.differentiable and images.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"expected images without gradients, as the image processor of {self._name} takes bytes only, got some "
                "with; detach them, or give another model."
            )
        inputs = self._processed(images, [self._chat(question) for question in questions], self.differentiable)
        if not bool(inputs["attention_mask"][:, -1].all()):
            raise ValueError(f"expected padding on the left, got it on the right from the processor of {self._name}.")
        place, kind = self.model.device, self.model.dtype
        return {
            key: value.to(place, kind) if value.is_floating_point() else value.to(place)
            for key, value in inputs.items()
            if isinstance(value, Tensor)
        }

    def _processed(self, images: Tensor, texts: list[str], as_floats: bool) -> Any:
        # In units of bytes, which is what the settings of processors (rescale_factor, fill) are in.
        scaled = images.float() * 255 if images.dtype != torch.float64 else images * 255
        given: list[Any] = list(scaled) if as_floats else [_pil(image) for image in scaled]
        special = getattr(self._processor.tokenizer, "bos_token", None)
        processor = self._processor.image_processor
        with _resizing_as_bytes(processor) if as_floats else nullcontext():
            return self._processor(
                text=texts,
                images=[[image] for image in given],
                padding=True,
                return_tensors="pt",
                add_special_tokens=not (special and texts[0].startswith(special)),  # the template may have written it
                **({"input_data_format": "channels_first"} if as_floats else {}),
            )

    def _takes_floats(self) -> bool:
        """Whether the image processor makes of float tensors, with gradients, what it makes of bytes."""
        if getattr(self._processor.image_processor, "backend", None) != "torchvision":
            return False
        steps = torch.linspace(0, 1, 6, dtype=torch.float64)
        image = (steps[:, None] * steps).round(decimals=1).repeat_interleave(16, 0).repeat_interleave(12, 1)
        images, chat = image.expand(1, 3, -1, -1).clone(), [self._chat("?")]
        usual = self._processed(images, chat, False)["pixel_values"]
        try:
            with torch.enable_grad():
                ours = self._processed(images.requires_grad_(), chat, True)["pixel_values"]
        except Exception:  # whatever a processor that wants bytes raises
            return False
        if not ours.requires_grad:
            return False
        return ours.shape == usual.shape and bool((ours - usual).abs().max() <= 0.02 * (usual.max() - usual.min()))

    def _chat(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return chat

    def answer_tokens(self, words: Sequence[str]) -> Tensor:
        """Return the tokens, (m,), by which a reply can begin with one of the words; see `log_probability`."""
        forms = dict.fromkeys(form for word in words for form in (word, f" {word}"))
        found = {token for form in forms if (token := self._token(form)) is not None}
        if not found:
            raise ValueError(
                f"expected an answer that is one token of {self._name} after its chat template, got "
                f"{', '.join(map(repr, words))}; choose a shorter word."
            )
        return torch.tensor(sorted(found), device=self.model.device)

    def _token(self, form: str) -> int | None:
        """The one token by which a text goes on behind the template; None if it takes several, or none is known."""
        if form not in self._tokens:
            tokenizer, chat = self._processor.tokenizer, self._chat("?")
            before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (chat, chat + form))
            one = len(after) == len(before) + 1 and after[:-1] == before and after[-1] != tokenizer.unk_token_id
            self._tokens[form] = after[-1] if one else None
        return self._tokens[form]


@contextmanager
def _resizing_as_bytes(image_processor: Any) -> Iterator[None]:
    """Let an image processor resize floats as it resizes bytes, but for their rounding, for the time of a call.

    Bytes are resized along rows, then along columns, and the overshoot of bicubic kernels is clipped after each.
    """
    resize = image_processor.resize

    def resized(*args: Any, **kwargs: Any) -> Tensor:
        bound = inspect.signature(resize).bind(*args, **kwargs)
        name, image = next(iter(bound.arguments.items()))
        resample = bound.arguments.get("resample")
        kernel = _KERNELS.get(int(getattr(resample, "value", resample) or 0))
        if kernel is None:  # Lanczos, whose overshoot is clipped once, and kernels without any
            other: Tensor = resize(*args, **kwargs)
            return other.clamp(0, 255)
        bound.arguments[name] = image.detach().to("meta")  # the processor's rule for the size, without the work
        size = resize(*bound.args, **bound.kwargs).shape[-2:]
        flat = image if image.ndim == 4 else image[None]
        for shape in ((flat.shape[-2], size[1]), tuple(size)):
            if flat.shape[-2:] != shape:
                flat = F.interpolate(flat, size=shape, mode=kernel, antialias=True, align_corners=False).clamp(0, 255)
        done: Tensor = flat if image.ndim == 4 else flat[0]
        return done

    image_processor.resize = resized
    try:
        yield
    finally:
        del image_processor.resize


def _pil(image: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(image.detach().clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
