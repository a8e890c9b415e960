"""Tables of prices: each situation in one of them, those beyond the mixture marked."""

from dataclasses import replace


def test_every_price_stands_in_one_table_and_those_beyond_the_mixture_are_marked(shown):
    result = shown("theorem1").result
    novel, familiar, gains, frontier = result.tables
    prices = result.data.prices
    assert len(novel.rows) + len(familiar.rows) == len(prices)
    beyond = sum(not price.within_limit for price in prices)
    assert sum("beyond L" in map(str, row) for row in familiar.rows) == beyond > 0
    assert all(str(row[-1]) == "1 / 1" for row in gains.rows)
    for column in zip(*frontier.rows, strict=True):
        assert list(column) == sorted(column), "a larger budget buys no less"
    assert "more data buys no more safety" in result.findings[0]


def test_what_is_said_of_prices_beyond_the_mixture_is_said_only_where_there_are_some(shown):
    result = shown("theorem1").result
    (_, familiar, *_) = result.findings
    assert "it takes a mixture of L >= " in familiar
    within = tuple(replace(price, within_limit=True) for price in result.data.prices)
    data = replace(result.data, prices=within)
    (_, familiar, *_) = result.presentation.findings(result.options, data)
    assert "it takes a mixture" not in familiar
