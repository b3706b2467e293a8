"""What libraries raise when a model cannot be read, as one line."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def readable(part: str, source: str) -> Iterator[None]:
    """Name the part and its place if reading fails.

    Args:
        part: What is read, such as "a tokenizer".
        source: Folder, or id on the Hugging Face hub.

    Raises:
        OSError: In place of whatever transformers, the hub or safetensors raise.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, HfHubHTTPError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise OSError(
            f"expected {part} in {source!r}, got {type(error).__name__} ({said}); give a folder, or an id on the hub."
        ) from error
