import math

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation.streamers import BaseStreamer

from llm_experiment.guard.generate import KLBudgetLogitsProcessor
from llm_experiment.guard.model import BudgetedCausalLM
from llm_experiment.pessimism.generate import VetoLogitsProcessor
from tests.llm_experiment.chat.test_veto_set import PARSER, SILENCE, veto_set
from tests.llm_experiment.fakes.small_world import NEWLINE, PIECES, YES, encode
from tests.llm_experiment.guard.pairs import N, laws_by_hand, log_probs, pair, tokens
from theory.errors import (
    InvalidArgumentError,
    InvalidDistributionError,
    InvalidShapeError,
    ModelError,
)

EOS, PAD = 2, 0
BUDGET = 0.4
POLICY, REFERENCE = pair()
PROMPT = tokens(3, 5)
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])


def budget(**options):
    given = {"budget_nats": BUDGET, "attention_mask": MASK, "eos_token_id": None}
    return KLBudgetLogitsProcessor(REFERENCE, **(given | options))


def generate(processors, *, ids=PROMPT, mask=MASK, n=8, model=POLICY, seed=0, **options):
    torch.manual_seed(seed)
    given = {"do_sample": True, "pad_token_id": PAD, "eos_token_id": None}
    return model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=n,
        logits_processor=processors,
        **(given | options),
    )


class Laws(LogitsProcessor):
    """Notes the law of every step of a budget's processor."""

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def __call__(self, input_ids, scores):
        chosen = self.inner(input_ids, scores)
        self.seen.append(self.inner.log_law)
        return chosen


# --------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_every_step_of_generate_has_the_law_worked_out_by_hand(share):
    laws = Laws(budget(step_share=share))
    texts = generate([laws])
    mask = torch.cat([MASK, torch.ones(3, 8, dtype=MASK.dtype)], dim=1)
    log_a, log_b = (log_probs(model, texts, mask)[:, 4:-1] for model in (POLICY, REFERENCE))
    found = torch.stack(laws.seen, dim=1).numpy()
    for i in range(3):
        expected, costs = laws_by_hand(log_a[i], log_b[i], budget=BUDGET, share=share)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
        np.testing.assert_allclose(laws.inner.kl_nats[i], costs, atol=1e-6)
    if share == 1:
        np.testing.assert_allclose(laws.inner.spent_nats, BUDGET, rtol=1e-9)


def test_texts_are_drawn_from_that_law():
    laws = Laws(budget(attention_mask=None))
    drawn = generate([laws], ids=PROMPT[1:2].repeat(4000, 1), mask=MASK[1:2].repeat(4000, 1), n=1)[
        :, -1
    ]
    law = laws.seen[0][0].exp().numpy()
    counts = np.bincount(drawn.numpy(), minlength=N)
    assert stats.chisquare(counts, 4000 * law / law.sum()).pvalue > 1e-3
    policy = np.exp(log_probs(POLICY, PROMPT[1:2])[0, -1])
    assert stats.chisquare(counts, 4000 * policy / policy.sum()).pvalue < 1e-6


def test_it_is_the_law_of_the_model_with_the_budget_built_in():
    laws = Laws(budget())
    texts = generate([laws])
    model = BudgetedCausalLM.from_models(*pair(), budget_nats=BUDGET).eval()
    labels = texts.clone()
    labels[:, :5] = -100
    mask = torch.cat([MASK, torch.ones(3, 8, dtype=MASK.dtype)], dim=1)
    with torch.no_grad():
        expected = model(input_ids=texts, attention_mask=mask, labels=labels)
    torch.testing.assert_close(
        torch.stack(laws.seen, dim=1), expected.logits[:, 4:-1], rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        laws.inner.spent_nats, expected.kl_nats.sum(dim=1), rtol=0, atol=1e-6
    )


def test_nothing_that_generate_does_afterwards_changes_the_texts():
    def written(seed, **options):
        return generate([budget(generator=torch.Generator().manual_seed(seed))], n=4, **options)

    plain = written(5)
    for options in (
        {"do_sample": False},
        {"temperature": 0.1, "top_k": 1},
        {"top_p": 0.1, "min_p": 0.5, "typical_p": 0.2},
        {"epsilon_cutoff": 0.3, "eta_cutoff": 0.3, "renormalize_logits": True},
    ):
        assert torch.equal(written(5, **options), plain)
    assert not torch.equal(written(6), plain)


def test_warpers_of_the_policy_come_before_the_budget():
    warpers = [TemperatureLogitsWarper(0.5), TopKLogitsWarper(2)]
    laws = Laws(budget(policy_processors=warpers, budget_nats=100.0))
    texts = generate([laws], n=1)
    scores = torch.from_numpy(log_probs(POLICY, PROMPT, MASK)[:, -1])
    for warper in warpers:
        scores = warper(PROMPT, scores)
    torch.testing.assert_close(
        laws.seen[0].exp(), scores.softmax(dim=-1).double(), rtol=0, atol=1e-5
    )
    assert texts.shape == (3, 6)
    # A law with zeros costs at least -log b of what it keeps: with less, the reference is played.
    poor = Laws(budget(policy_processors=warpers, budget_nats=0.01))
    generate([poor], n=1)
    reference = log_probs(REFERENCE, PROMPT, MASK)[:, -1]
    np.testing.assert_allclose(poor.seen[0], reference, atol=1e-5)
    assert float(poor.inner.spent_nats.max()) == 0.0


# ------------------------------------------------------------------------- texts and batches


def test_padding_is_no_part_of_a_text():
    # GPT-2 tells positions apart, not only distances.
    policy, reference = pair("gpt2, with dropout")
    together = Laws(KLBudgetLogitsProcessor(reference, budget_nats=BUDGET, attention_mask=MASK))
    generate([together], model=policy, n=1)
    for i in range(3):
        ids = PROMPT[i : i + 1, MASK[i].bool()]
        alone = Laws(KLBudgetLogitsProcessor(reference, budget_nats=BUDGET))
        generate([alone], model=policy, ids=ids, mask=torch.ones_like(ids), n=1)
        torch.testing.assert_close(alone.seen[0][0], together.seen[0][i], rtol=0, atol=1e-5)


def test_what_comes_after_the_end_is_not_charged():
    processor = budget(eos_token_id=EOS, step_share=0.2)
    texts = generate([processor], eos_token_id=EOS, n=12, seed=3)[:, 5:]
    ended = [row.index(EOS) for row in texts.tolist() if EOS in row]
    assert ended
    assert min(ended) < 10
    for row, kl in zip(texts.tolist(), processor.kl_nats.tolist(), strict=True):
        end = row.index(EOS) + 1 if EOS in row else len(row)
        assert all(x > 0 for x in kl[:end])
        assert not any(kl[end:])
    assert processor.spent_nats.tolist() == pytest.approx(processor.kl_nats.sum(dim=1).tolist())


def test_texts_that_generate_ends_otherwise_are_known_by_their_pads():
    # The processor is not told of the token that ends them.
    processor = budget(pad_token_id=PAD)
    texts = generate([processor], eos_token_id=EOS, n=30, seed=3)[:, 5:]
    assert any(EOS in row[:-2] for row in texts.tolist())
    with pytest.raises(InvalidArgumentError, match="name eos_token_id"):
        generate([budget()], eos_token_id=EOS, n=30, seed=3)


def test_several_texts_a_prompt_have_a_budget_each():
    processor = budget()
    texts = generate([processor], num_return_sequences=4)
    assert texts.shape[0] == 12
    assert processor.spent_nats.tolist() == pytest.approx([BUDGET] * 12)


def test_streamers_get_what_is_written():
    class Written(BaseStreamer):
        def __init__(self):
            self.tokens = []

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            self.tokens.append("end")

    streamer = Written()
    texts = generate(
        [budget(attention_mask=None)], ids=PROMPT[1:2], mask=MASK[1:2], streamer=streamer
    )
    assert streamer.tokens == [*texts[0].tolist(), "end"]


def test_the_reference_reads_every_token_once():
    lengths = []
    hook = REFERENCE.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    generate([budget()])
    hook.remove()
    assert lengths == [5] + [1] * 7


# ----------------------------------------------------------------------------------- vetoes


@pytest.mark.parametrize("nats", [0.0, 0.02, 50.0])
def test_what_is_vetoed_stays_impossible_under_any_budget(nats):
    policy, reference = pair(n_tokens=len(PIECES))
    ids = torch.tensor([encode("S: no\nT:")] * 200)

    def vetoing():
        return VetoLogitsProcessor(
            veto_set(SILENCE), PARSER, pad_token=None, stop_token=YES, limit=1.0
        )

    laws = Laws(
        KLBudgetLogitsProcessor(reference, budget_nats=nats, reference_processors=[vetoing()])
    )
    drawn = generate([laws], ids=ids, mask=torch.ones_like(ids), model=policy, n=1)[:, -1]
    assert not bool((drawn == NEWLINE).any())
    base = torch.from_numpy(log_probs(reference, ids[:1])[0, -1])
    base[NEWLINE] = -math.inf
    base = base.log_softmax(dim=-1)
    own = torch.from_numpy(log_probs(policy, ids[:1])[0, -1]).where(base > -math.inf, -math.inf)
    expected = base if nats == 0 else own.log_softmax(dim=-1)
    if nats != 0.02:
        torch.testing.assert_close(laws.seen[0][0], expected, rtol=0, atol=1e-5)
    law, kept = laws.seen[0][0], base > -math.inf
    kl = float((law.exp() * (law - base))[kept].sum())
    assert kl <= nats + 1e-9
    assert laws.inner.spent_nats.tolist() == pytest.approx([kl] * 200, abs=1e-6)


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("options", [{"num_beams": 3, "do_sample": False}, {"num_beams": 2}])
def test_beams_are_refused(options):
    with pytest.raises(InvalidArgumentError, match="no beams and no assistant"):
        generate([budget()], **options)


def test_a_processor_that_chooses_other_tokens_is_refused():
    class Always(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.full_like(scores, -math.inf).index_fill_(1, torch.tensor([3]), 0.0)

    with pytest.raises(InvalidArgumentError, match="as the last of its logits_processor"):
        generate([budget(), Always()])
    generate([Always(), budget()])  # a policy like any other


def test_a_processor_is_for_one_call():
    used = budget()
    with pytest.raises(InvalidArgumentError, match="before generate was called"):
        _ = used.spent_nats
    generate([used])
    with pytest.raises(InvalidArgumentError, match="one for one call of generate"):
        generate([used])


def test_unfit_models_masks_and_numbers_are_refused():
    with pytest.raises(ModelError, match="policy has 6 tokens and the reference 9; a KL needs"):
        generate([KLBudgetLogitsProcessor(pair(n_tokens=9)[1], budget_nats=1.0)], mask=MASK)
    with pytest.raises(ModelError, match="in training mode; call its eval"):
        KLBudgetLogitsProcessor(pair()[1].train(), budget_nats=1.0)
    with pytest.raises(InvalidShapeError, match=r"3 texts of up to 5 tokens, got shape \(2, 5\)"):
        generate([budget(attention_mask=MASK[:2])])
    for bad in ("policy_processors", "reference_processors"):

        class Spoil(LogitsProcessor):
            def __call__(self, input_ids, scores):
                return scores * math.nan

        with pytest.raises(InvalidDistributionError, match="are NaN"):
            generate([budget(**{bad: [Spoil()]})])
    with pytest.raises(InvalidDistributionError, match="are NaN"):
        generate([budget(budget_nats=0.0, reference_processors=[Spoil()])])
