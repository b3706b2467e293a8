"""Search for samples of high reward: settings of `fklit.steer` that do not sample the target."""

from fklit.steering.search.beam import Beam
from fklit.steering.search.code import CoDe
from fklit.steering.search.rollover import RolloverBudget
from fklit.steering.search.search import Search, Selection
from fklit.steering.search.sequential import SequentialBestOfN
from fklit.steering.search.svdd import SVDD

__all__ = ["SVDD", "Beam", "CoDe", "RolloverBudget", "Search", "Selection", "SequentialBestOfN"]
