"""Where a text goes on after its prompt."""


def split_prompt(text: str, prompt: str) -> tuple[str, int]:
    """Put a text behind its prompt.

    A text that begins with the prompt, apart from spaces and case (which tokenizers change), is split where the prompt
    ends; any other is taken as what follows the prompt.

    Args:
        text: What a model has made, with the prompt or without.
        prompt: Its prompt; empty for none.

    Returns:
        The whole text, and the place in it where the prompt ends.
    """
    end = _end_of(prompt, text)
    if end is not None:
        return text, end
    gap = "" if prompt[-1:].isspace() or text[:1].isspace() else " "
    return f"{prompt}{gap}{text}", len(prompt)


def _end_of(prompt: str, text: str) -> int | None:
    """Place after the prompt in a text that begins with it; None if it does not."""
    place = 0
    for sign in (sign for sign in prompt if not sign.isspace()):
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text) or text[place].casefold() != sign.casefold():
            return None
        place += 1
    # "The king" does not begin "The kingdom": a word of the prompt that goes on is another word.
    goes_on = place < len(text) and place > 0 and text[place - 1].isalnum() and text[place].isalnum()
    return None if goes_on else place
