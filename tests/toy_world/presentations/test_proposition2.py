"""What the demo of Proposition 2 finds, and what it says it cannot."""


def test_findings_say_what_a_total_language_cannot_show(shown):
    text = " ".join(shown("proposition2").result.findings)
    assert "true of a universal machine" in text
    assert "log2 log2 t by 9" in text
