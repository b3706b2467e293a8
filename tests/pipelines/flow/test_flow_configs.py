"""The shipped configurations of flow-matching models name arguments that their pipelines take."""

from pathlib import Path

import diffusers
import pytest
import yaml

from fklit.pipelines.call import call_parameters

FOLDER = Path(__file__).parents[3] / "configs" / "steering"


@pytest.mark.parametrize("name", ["sd35", "flux", "qwen_image", "wan"])
def test_arguments_are_those_of_the_class(name):
    given = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["model"]["init_args"]
    kind = getattr(diffusers, given["source"]["init_args"]["pipeline_class"])
    assert given["pipeline_kwargs"].keys() <= call_parameters(kind.__new__(kind)).keys()
    assert given["flow_kernel"] == "capped_dpmsolver++" and given["scheduler"] == "auto"
