"""One look for every figure: colour-blind safe, readable in grey, the same bytes every time.

Series differ by marker and line style as well as by colour, because a figure is often read in
grey. Colours are Okabe and Ito's.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from PIL import Image

from mightnt.results import write_atomically

BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#7F7F7F"
CYCLE: Final = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")


def series_look(index: int) -> dict[str, str]:
    """Colour and marker of a figure's n-th series, counted from 0; no two of the first 56 agree."""
    colors = (*CYCLE, GREY)
    return {"color": colors[index % len(colors)], "marker": MARKERS[index % len(MARKERS)]}


COLUMN_INCHES: Final = 3.4
PAGE_INCHES: Final = 7.0
RASTER_DPI: Final = 200

_STYLE: Final[Any] = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "font.size": 8.5,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "pdf.fonttype": 42,
    "svg.hashsalt": "mightnt",
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's defaults with this project's changes, whatever the user's own settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width_inches: float = PAGE_INCHES, height_inches: float = 3.0) -> Figure:
    """An empty figure; call inside `figure_style()`."""
    return Figure(figsize=(width_inches, height_inches))


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `figure` as `<stem>.png` and `<stem>.pdf`; equal data give equal bytes.

    Returns:
        The two paths.
    """
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    drawn = to_png(figure)
    write_atomically(png, lambda path: path.write_bytes(drawn))
    figure.set_layout_engine("none")  # where it stands now it stands in the other file, too
    FigureCanvasPdf(figure)
    write_atomically(
        pdf,
        lambda path: figure.savefig(
            path, metadata={"CreationDate": None, "Creator": None, "Producer": None}
        ),
    )
    return png, pdf


def to_png(figure: Figure) -> bytes:
    """The PNG file of `figure`; equal data give equal bytes.

    It has a palette of 256 colours, enough for lines and text, at a third of the size.
    """
    FigureCanvasAgg(figure)
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=RASTER_DPI)
    with Image.open(drawn) as picture:
        few_colors = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few_colors.save(reduced, "png", optimize=True)
    return reduced.getvalue()
