"""A figure in words and numbers: everything that its code decides, a line for each thing drawn.

What stands there is what a reader sees (texts, colours, styles, scales, limits) and sums over the
points, in order, which move when one point does.
"""

import numpy as np
from matplotlib.colors import to_hex


def described(figure):
    """Lines of text; the same for the same drawing."""
    lines = [f"figure of {_numbers(figure.get_size_inches())} inches"]
    lines += [f"  legend {_legend(legend)}" for legend in figure.legends]
    for place, axes in enumerate(figure.axes):
        lines += [f"panel {place}", *(f"  {line}" for line in _panel(axes))]
    return lines


def _panel(axes):
    yield f"title {axes.get_title(loc='left')!r}"
    for axis, scale, ends in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        base = getattr(axis.get_transform(), "base", "")
        yield f"axis {axis.get_label_text()!r} {scale} {base} from {_numbers(ends)}"
        yield f"ticks {[label.get_text() for label in axis.get_ticklabels()]}"
    for line in axes.lines:
        yield (
            f"line {line.get_label()!r} {to_hex(line.get_color())} {line.get_linestyle()} "
            f"{line.get_linewidth():g} {line.get_marker()} {line.get_markersize():g} "
            f"{line.get_fillstyle()} {line.get_drawstyle()} {_order(line)} "
            f"through {_sums(line.get_xdata(), line.get_ydata())}"
        )
    for drawn in axes.collections:
        corners = [np.empty((0, 2)), *(path.vertices for path in drawn.get_paths())]
        yield (
            f"{type(drawn).__name__} {drawn.get_label()!r} {_colours(drawn.get_facecolor())} "
            f"{_colours(drawn.get_edgecolor())} {_numbers(drawn.get_linewidth())} {_order(drawn)} "
            f"through {_sums(*np.concatenate(corners).T)} at {_sums(*drawn.get_offsets().T)}"
        )
    for patch in axes.patches:
        corners = patch.get_patch_transform().transform(patch.get_path().vertices)
        yield (
            f"{type(patch).__name__} {patch.get_label()!r} {_colours([patch.get_facecolor()])} "
            f"{_colours([patch.get_edgecolor()])} {patch.get_linewidth():g} {patch.get_hatch()} "
            f"{_order(patch)} through {_sums(*corners.T)}"
        )
    for text in axes.texts:
        yield (
            f"text {text.get_text()!r} at {_numbers(text.get_position())} {text.get_ha()} "
            f"{text.get_va()} {text.get_rotation():g} {_font(text)}"
        )
    for image in axes.images:
        rows = np.asarray(image.get_array(), dtype=float)
        yield f"image {image.get_cmap().name} {_numbers(image.get_clim())} {_sums(*rows)}"
    if axes.get_legend() is not None:
        yield f"legend {_legend(axes.get_legend())}"


def _legend(legend):
    return (
        f"{[text.get_text() for text in legend.get_texts()]} at {legend._get_loc()} "
        f"{_font(legend.get_texts()[0])} {legend._ncols} columns {legend.handlelength:g} "
        f"{legend.borderaxespad:g} {legend.labelspacing:g} {legend.columnspacing:g}"
    )


def _font(text):
    return f"{text.get_fontsize():g} {text.get_fontstyle()} {to_hex(text.get_color())}"


def _order(artist):
    return f"alpha {artist.get_alpha()} order {artist.get_zorder():g}"


def _colours(colours):
    return "/".join(sorted({to_hex(colour, keep_alpha=True) for colour in colours})) or "none"


def _sums(*rows):
    """How many points, and of each row the sum and that with the points' places as weights."""
    sums = []
    for row in rows:
        values = np.nan_to_num(np.ma.filled(np.ma.asarray(row, dtype=float), np.nan))
        sums += [values.sum(), (values * np.arange(1, len(values) + 1)).sum()]
    return f"{len(rows[0])} points {_numbers(sums)}"


def _numbers(values):
    return " ".join(f"{value:.9g}" for value in np.atleast_1d(np.asarray(values, dtype=float)))
