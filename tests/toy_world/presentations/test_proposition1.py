"""What the figure of Proposition 1's demo shows is the census."""

from collections import Counter

from mightnt.figure_style import figure_style


def test_the_figure_has_a_point_for_every_case_with_a_demonstration(shown):
    result = shown("proposition1").result
    cases = Counter(case.verdict.value for case in result.data.cases if case.n_steps > 0)
    with figure_style():
        axes, _ = result.figure().axes
    points = {
        line.get_label(): len(line.get_xdata()) for line in axes.lines if line.get_marker() in "^so"
    }
    assert points == {f"{verdict} ({n})": n for verdict, n in cases.items()}
