"""Progress goes to stderr and stays silent where nobody watches."""

from mightnt.progress import track


def test_tracking_yields_the_items_and_writes_nothing_without_a_terminal(capsys):
    assert list(track(iter([3, 1, 2]), "counting", total=3)) == [3, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
