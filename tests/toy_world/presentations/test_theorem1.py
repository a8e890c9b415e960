"""Tables of prices: each situation in one of them, those beyond the mixture marked."""


def test_every_price_stands_in_one_table_and_those_beyond_the_mixture_are_marked(shown):
    result = shown("theorem1").result
    novel, familiar, gains, frontier = result.tables
    prices = result.data.prices
    assert len(novel.rows) + len(familiar.rows) == len(prices)
    beyond = sum(not price.within_limit for price in prices)
    assert sum("beyond L" in row for row in familiar.rows) == beyond > 0
    assert all(row[-1] == "1 / 1" for row in gains.rows)
    for column in zip(*frontier.rows, strict=True):
        assert list(column) == sorted(column), "a larger budget buys no less"
    assert "more data buys no more safety" in result.findings[0]
