"""What the demo of the waiting agent finds."""


def test_the_agent_deviates_most_readily_after_the_bell(shown):
    assert "most readily after the bell" in " ".join(shown("waiting_agent").result.findings)
