"""Windows, caches and rows of different lengths change nothing of what a model says."""

import pytest
import torch

from llm_experiment.auditing import reading
from llm_experiment.auditing.reading import read_windows, token_costs, write_on
from tests.llm_experiment.fakes.tiny_hf import FAMILIES, N_TOKENS, tiny_model
from theory.errors import ModelError

ROWS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 9, 7], [9, 3, 2, 3, 8, 4, 6, 2]]


def rounding(model):
    """Of float64 models whose tokens are read in other groups.

    The library's own attention takes its softmax in float32, and how a processor sums it depends on
    how many numbers it takes at a time.
    """
    return 1e-5 if model.config._attn_implementation == "eager" else 1e-11


def plain_log_probs(model, row):
    """One forward of the library over one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(dim=-1)


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param).eval().double()


@pytest.fixture(params=[1, 4, 100], ids=lambda n: f"windows of {n}")
def _windows(request, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", request.param * len(ROWS) * N_TOKENS)


@pytest.mark.usefixtures("_windows")
def test_costs_of_rows_side_by_side_are_those_of_each_alone(model):
    for row, costs in zip(ROWS, token_costs(model, ROWS), strict=True):
        alone = plain_log_probs(model, row)
        expected = [0.0, *(-float(alone[i, token]) for i, token in enumerate(row[1:]))]
        assert costs == pytest.approx(expected, abs=rounding(model))


@pytest.mark.usefixtures("_windows")
def test_texts_that_go_on_together_go_on_as_each_alone(model):
    written = [list(row) for row in ROWS]

    def likeliest(rows, log_probs):
        chosen = log_probs.argmax(dim=-1)
        for row, predicted, token in zip(rows.tolist(), log_probs, chosen, strict=True):
            alone = plain_log_probs(model, written[row])[-1]
            torch.testing.assert_close(predicted, alone, atol=rounding(model), rtol=0)
            written[row].append(int(token))
        # One is done earlier than the others.
        over = torch.tensor([len(written[r]) == len(ROWS[r]) + 4 + r for r in rows.tolist()])
        return torch.where(over, -1, chosen)

    write_on(model, ROWS, likeliest)
    lengths = [len(after) - len(before) for after, before in zip(written, ROWS, strict=True)]
    assert lengths == [4, 5, 6]


def test_predictions_are_normalised_in_double_precision():
    model = tiny_model("llama, tied").eval().to(torch.bfloat16)
    ((start, log_probs),) = read_windows(model, torch.tensor(ROWS[:1]))
    assert (start, log_probs.dtype) == (0, torch.float64)
    torch.testing.assert_close(
        log_probs.exp().sum(dim=-1),
        torch.ones(1, len(ROWS[0]), dtype=torch.float64),
        atol=1e-14,
        rtol=0,
    )


def test_logits_that_are_no_numbers_are_refused():
    model = tiny_model("llama, tied").eval()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(ModelError, match="logits are no numbers"):
        token_costs(model, ROWS)
