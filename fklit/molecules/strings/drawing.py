"""Drawings of molecules by RDKit."""

from fklit.rewards.molecule_properties import parse_smiles, rdkit_module


def draw_molecule(smiles: str, *, width: int = 240, height: int = 180) -> str | None:
    """SVG of a molecule; None if the text is none.

    Args:
        smiles: The molecule.
        width: Of the drawing, pixels.
        height: Of the drawing, pixels.

    Raises:
        ImportError: RDKit is not installed.
    """
    molecule = parse_smiles(smiles)
    if molecule is None:
        return None
    canvas = rdkit_module("Chem.Draw.rdMolDraw2D", owner="draw_molecule").MolDraw2DSVG(width, height)
    canvas.drawOptions().clearBackground = False
    canvas.DrawMolecule(molecule)
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())
