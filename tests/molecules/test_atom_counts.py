"""Conditions on numbers of atoms, as they are written and as symbols of SELFIES count."""

import pytest

from fklit.molecules import AtomCount
from fklit.molecules.strings.atom_counts import element_of, indices_after


def test_conditions_are_read():
    assert AtomCount.parse("O>=4") == AtomCount("O", at_least=4)
    assert AtomCount.parse(" heavy_atoms <= 20 ") == AtomCount("heavy_atoms", at_most=20)
    assert AtomCount.parse("Cl=0") == AtomCount("Cl", 0, 0)
    for text in ("O>=4", "heavy_atoms<=20", "Cl=0", "N=2"):
        assert str(AtomCount.parse(text)) == text
    assert str(AtomCount("O", 1, 3)) == "1<=O<=3"
    for text in ("O>4", "O", "O>=-1", ">=4", "O>=4 N>=1", "O>=1.5"):
        with pytest.raises(ValueError, match="expected a count such as 'O>=4'"):
            AtomCount.parse(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("oxygens", 4), "expected an element such as 'O'"),
        (("H", 4), "that SELFIES writes, got 'H'"),
        (("O", 4, 3), "expected 0 <= at_least <= at_most, got at_least=4 and at_most=3"),
        (("O", -1, 3), "got at_least=-1"),
        (("O",), "got neither; give one"),
        (("O", 0), "got neither; give one"),
    ],
)
def test_what_is_no_condition_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        AtomCount(*given)


def test_numbers_that_meet_a_condition():
    assert [AtomCount("O", 2).met(number) for number in range(4)] == [False, False, True, True]
    assert [AtomCount("O", 1, 2).met(number) for number in range(4)] == [False, True, True, False]
    assert AtomCount("O", 2).most == 2 and AtomCount("O", 1, 2).most == 3
    for count in (AtomCount("O", 2), AtomCount("O", 1, 2), AtomCount("O", 0, 0)):  # larger numbers are alike
        assert count.met(count.most) == count.met(count.most + 5)


def test_elements_of_symbols():
    found = {
        "[C]": "C", "[=N]": "N", "[#N]": "N", "[NH1]": "N", "[N+1]": "N", "[Cl]": "Cl", "[Br]": "Br", "[C@@H1]": "C",
        "[/C]": "C", "[13CH1]": "C", "[Ring1]": None, "[=Branch2]": None, "[#Branch1]": None, "[H]": None,
    }  # fmt: skip
    assert {symbol: element_of(symbol) for symbol in found} == found
    assert [indices_after(symbol) for symbol in ("[Branch1]", "[=Ring2]", "[C]", "[Branch3]")] == [1, 2, 0, 3]
    heavy = AtomCount("heavy_atoms", at_most=3)
    assert heavy.counts("[Cl]") and not heavy.counts("[Ring1]")
    assert AtomCount("C", 1).counts("[=C]") and not AtomCount("C", 1).counts("[Cl]")
