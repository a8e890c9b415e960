"""What the demo of Theorem 2 finds."""


def test_no_proved_claim_is_violated_and_tvd_leaves_exactly_c(shown):
    text = " ".join(shown("theorem2").result.findings)
    assert "No violation of a proved claim" in text
    assert "exactly c, in all three readings" in text
