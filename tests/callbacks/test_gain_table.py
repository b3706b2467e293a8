"""What the table at the end of a test says, and which gains it colors."""

import io
import math

from rich.console import Console

from fklit.callbacks.gain_table import print_gains
from fklit.metrics.paired_mean import Gain


def lines(gains, lower=frozenset()):
    console = Console(width=100, record=True, force_terminal=True, color_system="standard", file=io.StringIO())
    print_gains(gains, lower=lower, console=console)
    styled = console.export_text(styles=True, clear=False)
    return console.export_text().splitlines(), styled


def test_over_all_comes_first_then_labels_and_empty_ones_are_left_out():
    gains = {
        "reward": {"position": Gain(2, 0.5, 0.75, 0.25, 0.1), "": Gain(10, 0.25, 0.5, 0.25, 0.05)},
        "judge": {"": Gain(1, 0.0, 1.0, 1.0, math.nan)},
        "empty": {"": Gain(0, math.nan, math.nan, math.nan, math.nan)},
    }
    rows = [line.split() for line in lines(gains)[0] if line.strip()]
    assert ["reward", "10", "0.250", "0.500", "+0.250", "0.050"] in rows
    assert rows.index(["position", "2", "0.500", "0.750", "+0.250", "0.100"]) == 1 + rows.index(
        ["reward", "10", "0.250", "0.500", "+0.250", "0.050"]
    )
    assert ["judge", "1", "0.000", "1.000", "+1.000", "-"] in rows
    assert not any(row[0] == "empty" for row in rows)


def test_decided_gains_are_green_where_they_are_better_and_red_where_they_are_worse():
    rise, fall, noise = (
        Gain(10, 0.0, 1.0, 1.0, 0.1),
        Gain(10, 1.0, 0.0, -1.0, 0.1),
        Gain(10, 0.0, 0.1, 0.1, 0.1),
    )
    green, red = "\x1b[32m", "\x1b[31m"
    for gain, lower, color in (
        (rise, False, green), (fall, False, red), (rise, True, red), (fall, True, green), (noise, False, None),
    ):  # fmt: skip
        styled = lines({"measure": {"": gain}}, frozenset({"measure"}) if lower else frozenset())[1]
        assert (green in styled, red in styled) == (color == green, color == red)


def test_nothing_is_printed_without_a_gain():
    assert not lines({"reward": {"": Gain(0, math.nan, math.nan, math.nan, math.nan)}})[0]
