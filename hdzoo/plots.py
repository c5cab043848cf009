"""What figures have in common: colours that everybody can tell, and how they are saved."""

from pathlib import Path
from typing import TYPE_CHECKING

from hdzoo.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Different for every kind of colour vision (Okabe and Ito); more lines differ by their marker.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "os^vDPX*"
DPI = 150


def style(number: int) -> dict[str, str]:
    """Colour and marker of a line.

    Args:
        number: of the line, from 0.
    """
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as a PNG."""
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, bbox_inches="tight")
