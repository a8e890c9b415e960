"""What the tables and findings of the universal machine's demo say."""

import math

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
