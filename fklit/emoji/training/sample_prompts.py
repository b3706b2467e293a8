"""Prompts that are drawn while a text-to-image model trains, with what a judge needs to know about them."""

from fklit.emoji.prompts import ScenePrompt, Wanted

SAMPLE_SCENES = (
    ScenePrompt("single_object", (Wanted("cat"),)),
    ScenePrompt("colors", (Wanted("heart", "red"),)),
    ScenePrompt("single_object", (Wanted("butterfly"),)),
    ScenePrompt("single_object", (Wanted("pizza"),)),
    ScenePrompt("counting", (Wanted("dog", count=2),)),
    ScenePrompt("counting", (Wanted("circle", "green", 3),)),
    ScenePrompt("counting", (Wanted("star", count=4),)),
    ScenePrompt("counting", (Wanted("apple", "red", 2),)),
    ScenePrompt("two_object", (Wanted("cat"), Wanted("house"))),
    ScenePrompt("color_attr", (Wanted("square", "blue"), Wanted("book", "red"))),
    ScenePrompt("position", (Wanted("rocket"), Wanted("sun")), "left of"),
    ScenePrompt("position", (Wanted("heart", "yellow"), Wanted("frog")), "right of"),
    ScenePrompt("position", (Wanted("tree"), Wanted("car")), "above"),
    ScenePrompt("position", (Wanted("circle", "purple"), Wanted("panda")), "below"),
    ScenePrompt("color_attr", (Wanted("apple", "green"), Wanted("square", "yellow"))),
    ScenePrompt("position", (Wanted("octopus"), Wanted("umbrella")), "above"),
)
"""Of all six tasks; the first `num_samples` of them are drawn."""
