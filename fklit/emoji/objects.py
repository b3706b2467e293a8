"""The objects of the emoji scenes: what they are called, their colors, and where their images come from."""

from dataclasses import dataclass

COLORS = ("red", "green", "blue", "yellow", "purple")


@dataclass(frozen=True)
class EmojiObject:
    """A drawable object: noun, its color (None when it has one look only) and its short name in the npm packages."""

    noun: str
    color: str | None
    short_name: str

    @property
    def name(self) -> str:
        """Unique name, for example `"red heart"` or `"cat"`; also the class name a detector should use."""
        return self.noun if self.color is None else f"{self.color} {self.noun}"


def _colored(noun: str, **short_names: str) -> list[EmojiObject]:
    return [EmojiObject(noun, color, short) for color, short in short_names.items()]


OBJECTS: tuple[EmojiObject, ...] = (
    *_colored(
        "heart", red="heart", green="green_heart", blue="blue_heart", yellow="yellow_heart", purple="purple_heart"
    ),
    *_colored(
        "circle",
        red="red_circle",
        green="large_green_circle",
        blue="large_blue_circle",
        yellow="large_yellow_circle",
        purple="large_purple_circle",
    ),
    *_colored(
        "square",
        red="large_red_square",
        green="large_green_square",
        blue="large_blue_square",
        yellow="large_yellow_square",
        purple="large_purple_square",
    ),
    *_colored("book", red="closed_book", green="green_book", blue="blue_book"),
    *_colored("apple", red="apple", green="green_apple"),
    EmojiObject("cat", None, "cat"),
    EmojiObject("dog", None, "dog"),
    EmojiObject("panda", None, "panda_face"),
    EmojiObject("frog", None, "frog"),
    EmojiObject("fox", None, "fox_face"),
    EmojiObject("fish", None, "tropical_fish"),
    EmojiObject("octopus", None, "octopus"),
    EmojiObject("butterfly", None, "butterfly"),
    EmojiObject("pizza", None, "pizza"),
    EmojiObject("doughnut", None, "doughnut"),
    EmojiObject("strawberry", None, "strawberry"),
    EmojiObject("car", None, "car"),
    EmojiObject("rocket", None, "rocket"),
    EmojiObject("star", None, "star"),
    EmojiObject("sun", None, "sunny"),
    EmojiObject("tree", None, "evergreen_tree"),
    EmojiObject("sunflower", None, "sunflower"),
    EmojiObject("umbrella", None, "umbrella_with_rain_drops"),
    EmojiObject("ball", None, "soccer"),
    EmojiObject("house", None, "house"),
)
NOUNS: tuple[str, ...] = tuple(dict.fromkeys(thing.noun for thing in OBJECTS))


def colors_of(noun: str) -> tuple[str, ...]:
    """Colors a noun is drawn in; empty for a noun with one look only."""
    return tuple(thing.color for thing in OBJECTS if thing.noun == noun and thing.color is not None)


def find_object(noun: str, color: str | None) -> EmojiObject:
    """The object with this noun and color.

    Raises:
        KeyError: There is no such object.
    """
    for thing in OBJECTS:
        if thing.noun == noun and thing.color == color:
            return thing
    raise KeyError(
        f"expected one of {[thing.name for thing in OBJECTS]}, got noun {noun!r} in color {color!r}; choose another."
    )
