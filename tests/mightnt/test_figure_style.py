"""Equal data make equal bytes, whatever the user's own matplotlib settings are."""

import matplotlib as mpl

from mightnt.figure_style import figure_style, new_figure, save_figure


def draw(folder, name, *, slope):
    with figure_style():
        figure = new_figure()
        figure.subplots().plot([0, 1], [0, slope], label="line")
        return [path.read_bytes() for path in save_figure(figure, folder / name)]


def test_equal_data_give_equal_bytes_and_different_data_do_not(tmp_path):
    first = draw(tmp_path, "first", slope=1)
    assert first == draw(tmp_path, "second", slope=1)
    third = draw(tmp_path, "third", slope=2)
    assert all(a != b for a, b in zip(first, third, strict=True))


def test_the_users_settings_neither_leak_in_nor_are_changed(tmp_path):
    expected = draw(tmp_path, "plain", slope=1)
    with mpl.rc_context({"lines.linewidth": 9.0, "font.size": 30.0}):
        assert draw(tmp_path, "loud", slope=1) == expected
        assert mpl.rcParams["lines.linewidth"] == 9.0
