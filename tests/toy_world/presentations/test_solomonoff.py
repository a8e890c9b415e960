"""What the tables and findings of the universal machine's demo say."""

import math
from dataclasses import replace

from toy_world.presentations.solomonoff import bargains, findings
from toy_world.presentations.solomonoff import shown as rows_shown


def test_the_tables_show_small_numbers_powers_of_two_and_bargains(shown):
    prices = shown("solomonoff").result.data.prices
    assert {1, 2, 7, 8, 9, 31, 32, 33, 93, 100} <= {p.n for p in rows_shown(prices)}


def test_findings_say_what_is_proved_and_what_is_out_of_reach(shown):
    result = shown("solomonoff").result
    text, prices = " ".join(result.findings), result.data.prices
    out_of_reach = [p.n for p in prices if math.isinf(p.bits)]
    assert f"for {len(out_of_reach)} of the n, the first {out_of_reach[0]}" in text
    assert "after 93 zeros (0+::1)" in text
    assert f"at most {prices[93].most_bits:.2f} bits" in text


def test_a_small_number_is_dearer_only_where_the_intervals_do_not_meet(shown):
    """Of the numbers below the cheapest one, one is raised to the cheapest's interval, or over."""
    result = shown("solomonoff").result
    prices = result.data.prices
    cheapest = bargains(prices, 1)[0]

    def text(from_bits):
        low = [replace(p, from_bits=0.0) for p in prices[: cheapest.n]]
        low[5] = replace(low[5], from_bits=from_bits)
        data = replace(result.data, prices=(*low, *prices[cheapest.n :]))
        return " ".join(findings(result.options, data))

    assert f"less than after {prices[5].n} (" in text(math.nextafter(cheapest.to_bits, math.inf))
    assert "less than after" not in text(cheapest.to_bits)
