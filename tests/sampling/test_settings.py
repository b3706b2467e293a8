"""One declaration of the settings: the same names, defaults, types and help in Python, the tasks and the CLI."""

import inspect
from dataclasses import fields
from typing import get_type_hints

import docstring_parser
import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from fklit.correctors.guidance.api import correct
from fklit.correctors.guidance.settings import GuidanceArguments, GuidanceSettings
from fklit.correctors.guidance.task import GuidanceTask
from fklit.feynman_kac import Adaptive, Max, Schedule
from fklit.feynman_kac.potentials import PotentialName, get_potential
from fklit.feynman_kac.resampling import ResamplerName, get_resampler
from fklit.rewards import Function
from fklit.sampling.arguments import described_fields, takes_settings
from fklit.sampling.settings import ParticleSettings, RewardSettings, SamplingSettings
from fklit.steering.api import steer
from fklit.steering.settings import SteeringArguments, SteeringSettings
from fklit.steering.task import SteeringTask

METHODS = [
    (SteeringSettings, SteeringArguments, steer, SteeringTask),
    (GuidanceSettings, GuidanceArguments, correct, GuidanceTask),
]


def _declared(settings):
    hints = get_type_hints(settings)
    return {item.name: (item.default, hints[item.name]) for item in fields(settings)}


def _keywords(function):
    found = inspect.signature(function).parameters.values()
    return {item.name: item for item in found if item.kind is item.KEYWORD_ONLY}


@pytest.mark.parametrize(("settings", "arguments", "function", "task"), METHODS)
def test_names_defaults_types_and_help_are_the_same_in_all_places(settings, arguments, function, task):
    declared, described = _declared(settings), described_fields(settings)
    assert {name: hint for name, (_, hint) in declared.items()} == get_type_hints(arguments)
    for place in (function, task.__init__):
        own = _keywords(place)
        assert declared.keys() <= own.keys()
        for name, (default, hint) in declared.items():
            required = own[name].default is inspect.Parameter.empty
            assert required == (default.__class__.__name__ == "_MISSING_TYPE"), name
            assert required or own[name].default == default, name
            assert own[name].annotation == hint, name
        documented = {item.arg_name: item.description for item in docstring_parser.parse(place.__doc__).params}
        assert documented.keys() == set(inspect.signature(place).parameters) - {"self"}
        for name, text in described.items():
            assert " ".join(documented[name].split()) == " ".join(text.split()), name


@pytest.mark.parametrize(("settings", "arguments", "function", "task"), METHODS)
def test_the_command_line_reads_them(settings, arguments, function, task, capsys):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    with pytest.raises(SystemExit):
        parser.parse_args([f"--model.help={task.__module__}.{task.__qualname__}"])
    shown = " ".join(capsys.readouterr().out.split())
    described = described_fields(settings)
    for name, (default, _) in _declared(settings).items():
        assert f"--model.{name}" in shown
        assert " ".join(described[name].split())[:40] in shown, name
        if isinstance(default, int | float | str):
            assert f"default: {default}" in shown


def test_methods_differ_in_two_defaults_only():
    shared = _declared(SamplingSettings)
    changed = {
        (settings.__name__, name)
        for settings in (SteeringSettings, GuidanceSettings)
        for name in shared
        if name != "reward" and _declared(settings)[name] != shared[name]
    }
    assert changed == {("GuidanceSettings", "num_particles"), ("GuidanceSettings", "ess_threshold")}


def test_every_named_resampler_and_potential_exists():
    assert {get_resampler(name).__name__ for name in ResamplerName.__args__} == set(ResamplerName.__args__)
    assert len({get_potential(name) for name in PotentialName.__args__}) == len(PotentialName.__args__)


def test_the_two_parts_are_checked_and_normalized():
    settings = SteeringSettings(
        reward=lambda images: images, potential="max", tempering=Adaptive(), reward_schedule=Schedule(1, 2)
    )
    assert isinstance(settings, ParticleSettings) and isinstance(settings, RewardSettings)
    assert isinstance(settings.reward, Function) and settings.potential == Max()
    assert SteeringSettings(**settings.keywords()) == settings
    for wrong in ({"num_particles": 0}, {"max_batch": 0}, {"ess_threshold": -0.1}, {"scheduler": "swap"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ParticleSettings(**wrong)
    for scale in (-1.0, float("inf"), True, "3"):
        with pytest.raises(ValueError, match="reward_scale expected a finite number"):
            RewardSettings(reward=len, reward_scale=scale)
    with pytest.raises(ValueError, match="expected a reward, got none"):
        RewardSettings(reward_scale=1.0)
    with pytest.raises(ValueError, match="guidance_scale expected"):
        GuidanceSettings(guidance_scale=0.9)


def test_an_undescribed_field_is_refused():
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Undescribed(ParticleSettings):
        """Adds a setting and says nothing of it."""

        extra: int = 0

    with pytest.raises(TypeError, match=r"expected a description of \['extra'\]"):
        takes_settings(Undescribed)(lambda **settings: None)
