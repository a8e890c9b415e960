import copy
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from llm_experiment.base.shipped import language_model_folder
from llm_experiment.guard.measured import answers_kl_nats
from llm_experiment.guard.model import BudgetedCausalLM
from tests.llm_experiment.guard.pairs import N, laws_by_hand, log_probs, pair, tokens
from theory.errors import (
    InvalidArgumentError,
    InvalidBudgetError,
    InvalidDistributionError,
    InvalidShapeError,
    ModelError,
)

BUDGET = 0.4
FAMILIES = ("qwen2", "llama, tied", "gpt2, with dropout", "pythia", "mistral, sliding")
LEFT = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 10])
RIGHT = LEFT.flip(dims=[1])


def budgeted(family="qwen2", *, nats=BUDGET, share=1.0, **options):
    policy, reference = pair(family, **options)
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=nats, step_share=share)
    return model.eval()


def shipped(seed):
    """The classroom's language model, its last layer a little shaken."""
    model = AutoModelForCausalLM.from_pretrained(language_model_folder("classroom")).eval()
    generator = torch.Generator().manual_seed(seed)
    weight = model.lm_head.weight.data
    weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
    return model


def paid_from(ids, first):
    """Labels under which the tokens from position `first` on are the policy's own."""
    labels = ids.clone()
    labels[:, :first] = -100
    return labels


# ---------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("mask", [LEFT, RIGHT])
def test_its_log_probabilities_are_those_worked_out_by_hand(mask, share):
    model, ids = budgeted(share=share), tokens(2, 10)
    labels = paid_from(ids, 5).where(mask.bool(), -100)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, labels=labels)
    log_a, log_b = (log_probs(m, ids, mask) for m in (model.model.policy, model.model.reference))
    for i in range(2):
        kept = mask[i].bool().numpy()
        pays = (labels[i, 1:] != -100).numpy()
        first = int(np.flatnonzero(pays)[0])
        rows = slice(int(np.flatnonzero(kept)[0]), int(np.flatnonzero(pays)[-1]) + 1)
        expected, costs = laws_by_hand(
            log_a[i, rows], log_b[i, rows], budget=BUDGET, share=share, free=first - rows.start
        )
        np.testing.assert_allclose(found.logits[i, rows], expected, atol=1e-7)
        np.testing.assert_allclose(found.kl_nats[i, rows], costs, atol=1e-9)
        assert float(found.kl_nats[i].sum()) == pytest.approx(sum(costs))
        if share == 1:
            assert sum(costs) == pytest.approx(BUDGET)


def test_whole_sequences_are_within_the_budget_by_enumeration():
    model, prompt, length = budgeted(nats=0.25), tokens(1, 2), 4
    endings = torch.tensor(list(itertools.product(range(N), repeat=length)))
    ids = torch.cat([prompt.expand(len(endings), 2), endings], dim=1)
    with torch.no_grad():
        found = model(input_ids=ids, labels=paid_from(ids, 2))

    def log_p(log_rows):
        return np.take_along_axis(log_rows[:, 1:-1], endings.numpy()[..., None], axis=2).sum((1, 2))

    p, q = log_p(found.logits.numpy()), log_p(log_probs(model.model.reference, ids))
    assert np.exp(p).sum() == pytest.approx(1.0)
    paths = found.kl_nats.sum(dim=1).numpy()
    assert paths.max() <= 0.25 * (1 + 1e-12)
    kl = float(np.sum(np.exp(p) * (p - q)))
    assert 0.2 < kl <= 0.25
    # The chain rule: the KL of sequences is the mean over paths of the sum of the steps'.
    assert kl == pytest.approx(float(np.sum(np.exp(p) * paths)), abs=1e-9)


@pytest.mark.parametrize(
    ("family", "mask"), [(family, LEFT) for family in FAMILIES] + [("qwen2", RIGHT)]
)
def test_step_by_step_with_a_cache_it_says_the_same(family, mask):
    model, ids, cache = budgeted(family, share=0.5), tokens(2, 10), None
    pays = mask.bool() & (torch.arange(10) >= 3)
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask, budget_mask=pays)
        for start, end in ((0, 4), *((t, t + 1) for t in range(4, 10))):
            step = model(
                input_ids=ids[:, start:end],
                attention_mask=mask[:, :end],
                past_key_values=cache,
                use_cache=True,
                budget_mask=pays[:, start:end],
            )
            cache = step.past_key_values
            kept = mask[:, start:end].bool()
            for name in ("logits", "kl_nats"):
                torch.testing.assert_close(
                    getattr(step, name)[kept],
                    getattr(whole, name)[:, start:end][kept],
                    rtol=0,
                    atol=1e-10,
                )
    torch.testing.assert_close(cache.ledger.spent_nats, whole.kl_nats.sum(dim=1))


def test_in_single_precision_both_agree_to_a_millionth():
    policy, reference = (shipped(seed) for seed in (1, 2))
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=BUDGET).eval()
    ids, cache = tokens(4, 12, n_tokens=policy.config.vocab_size), None
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        assert whole.dtype == torch.float32
        for t in range(12):
            step = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            torch.testing.assert_close(
                step.logits[:, 0].exp(), whole[:, t].exp(), rtol=0, atol=1e-6
            )


def test_in_single_precision_nobody_else_measures_more_than_the_budget():
    policy, reference = (shipped(seed) for seed in (1, 2))
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=0.1).eval()
    prompt = tokens(64, 4, n_tokens=policy.config.vocab_size)
    torch.manual_seed(0)
    texts = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20)
    rows = prompt.tolist(), texts[:, 4:].tolist()
    spent = answers_kl_nats(model, reference, *rows)
    assert 0.0999 < float(spent.max()) <= 0.1


def test_generate_pays_for_what_it_writes_and_for_nothing_else():
    model, ids = budgeted(share=0.5), tokens(2, 10)
    torch.manual_seed(0)
    out = model.generate(
        ids, attention_mask=LEFT, max_new_tokens=6, return_dict_in_generate=True, output_logits=True
    )
    mask = torch.cat([LEFT, torch.ones(2, 6, dtype=LEFT.dtype)], dim=1)
    texts = out.sequences
    with torch.no_grad():
        again = model(input_ids=texts, attention_mask=mask, labels=paid_from(texts, 10))
    torch.testing.assert_close(
        torch.stack(out.logits, dim=1), again.logits[:, 9:-1].float(), rtol=0, atol=1e-6
    )
    spent = out.past_key_values.ledger.spent_nats
    torch.testing.assert_close(spent, again.kl_nats.sum(dim=1))
    assert float(spent.max()) <= BUDGET
    assert float(again.kl_nats[:, :9].abs().max()) == 0.0


def test_a_conversation_goes_on_with_what_is_left():
    model, ids = budgeted(share=0.3), tokens(1, 4)
    torch.manual_seed(0)
    first = model.generate(ids, max_new_tokens=3, return_dict_in_generate=True)
    spent = float(first.past_key_values.ledger.spent_nats[0])
    more = torch.cat([first.sequences, tokens(1, 2, seed=9)], dim=1)
    second = model.generate(
        more,
        past_key_values=first.past_key_values,
        max_new_tokens=5,
        return_dict_in_generate=True,
    )
    total = float(second.past_key_values.ledger.spent_nats[0])
    assert spent < total <= BUDGET


# ---------------------------------------------------------------- prompts, padding, packing


def test_without_labels_everything_that_is_no_padding_is_charged():
    model, ids = budgeted(nats=100.0), tokens(2, 10)
    with torch.no_grad():
        charged = model(input_ids=ids, attention_mask=LEFT).kl_nats
        masked = model(input_ids=ids, attention_mask=LEFT, labels=ids, budget_mask=LEFT).kl_nats
    assert torch.equal(charged > 0, LEFT.bool())
    assert torch.equal(charged, masked)


def test_what_a_prompt_would_have_cost_is_not_taken_from_the_answer():
    model, ids = budgeted(), tokens(1, 8)
    with torch.no_grad():
        answer = model(input_ids=ids, labels=paid_from(ids, 6))
        everything = model(input_ids=ids)
    assert answer.remaining_nats[0, 5] == BUDGET
    assert torch.isinf(answer.remaining_nats[0, :5]).all()
    assert everything.remaining_nats[0, 5] < BUDGET
    own = log_probs(model.model.policy, ids)
    np.testing.assert_allclose(answer.logits[0, :5], own[0, :5], atol=1e-9)


def test_packed_texts_are_as_if_alone():
    model, lengths = budgeted(share=0.5), (4, 5, 3)
    ids = tokens(1, sum(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions)
        start = 0
        for n in lengths:
            alone = model(input_ids=ids[:, start : start + n])
            for name in ("logits", "kl_nats", "remaining_nats"):
                torch.testing.assert_close(
                    getattr(packed, name)[:, start : start + n], getattr(alone, name)
                )
            start += n


def test_its_output_layer_makes_its_logits_of_its_last_hidden_state():
    policy, reference = pair()
    for model, seed in ((policy, 1), (reference, 2)):
        layer = nn.Linear(16, N, bias=True).double()
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(seed))
        model.lm_head = layer
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=BUDGET).eval()
    ids = tokens(2, 7)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state
        head = model.get_output_embeddings()
        logits = nn.functional.linear(hidden, head.weight, head.bias)
        expected = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids, logits_to_keep=2).logits, expected[:, -2:])
    torch.testing.assert_close(logits.log_softmax(dim=-1), expected, rtol=0, atol=1e-12)
    log_a, log_b = (log_probs(m, ids) for m in (policy, reference))
    by_hand, _ = laws_by_hand(log_a[0], log_b[0], budget=BUDGET)
    np.testing.assert_allclose(expected[0], by_hand, atol=1e-7)


# --------------------------------------------------------------------------------- training


def test_gradients_are_finite_differences_through_the_budgets_of_earlier_steps():
    # GPT-2's layers keep float64; those of other families round to float32 on their way.
    model, ids = budgeted("gpt2, with dropout", share=0.6), tokens(2, 8)
    generator = torch.Generator().manual_seed(3)
    weights = list(model.model.policy.parameters())
    directions = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]

    def loss():
        log_probs = model(input_ids=ids, labels=paid_from(ids, 3)).logits[:, 2:-1]
        return -log_probs.gather(-1, ids[:, 3:, None]).mean()

    loss().backward()
    slope = sum((w.grad * d).sum().item() for w, d in zip(weights, directions, strict=True))
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(step * direction)
            ends.append(float(loss()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)
    assert all(w.grad is None and not w.requires_grad for w in model.model.reference.parameters())


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")
def test_gradients_are_the_same_with_checkpoints():
    ids, found = tokens(2, 8), []
    for checkpoints in (False, True):
        model = budgeted(share=0.6).train()
        if checkpoints:
            model.gradient_checkpointing_enable()
        model(input_ids=ids, labels=ids).loss.backward()
        found.append([p.grad for p in model.model.policy.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_the_loss_is_the_mean_log_probability_of_the_answer():
    model, ids = budgeted(), tokens(2, 8)
    with torch.no_grad():
        output = model(input_ids=ids, labels=paid_from(ids, 5))
    own = output.logits[:, 4:-1].gather(-1, ids[:, 5:, None])
    assert float(output.loss) == pytest.approx(-float(own.mean()))


def test_the_reference_is_never_in_training_mode():
    model = budgeted("gpt2, with dropout").train()
    assert model.model.policy.training
    assert not model.model.reference.training
    torch.manual_seed(0)
    with torch.no_grad():
        spent = [model(input_ids=tokens(1, 6)).kl_nats for _ in range(2)]
    assert not torch.equal(*spent)  # the policy's dropout


def test_wrapping_changes_no_weight():
    policy, reference = pair()
    before = copy.deepcopy(policy.state_dict()), copy.deepcopy(reference.state_dict())
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=BUDGET)
    for part, old in zip((model.model.policy, model.model.reference), before, strict=True):
        assert all(torch.equal(old[name], new) for name, new in part.state_dict().items())


# ----------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("family", ["qwen2", "llama, tied"])
def test_a_saved_model_says_the_same(family, tmp_path):
    model, ids = budgeted(family, share=0.5), tokens(2, 8)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["budget_nats"], config["step_share"]) == (BUDGET, 0.5)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is BudgetedCausalLM
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    frozen = [p.requires_grad for p in again.model.reference.parameters()]
    assert not any(frozen)
    assert all(p.requires_grad for p in again.model.policy.parameters())
    single = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in single.parameters()} == {torch.float32}


def lora(policy):
    peft = pytest.importorskip("peft", reason="needs the extra trl: pip install 'mightnt[trl]'")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(policy, config, autocast_adapter_dtype=False)


@pytest.mark.filterwarnings("ignore")
def test_a_policy_with_lora_is_trained_saved_and_loaded(tmp_path):
    base, reference = pair(distance=0.0)
    policy, ids = lora(base), tokens(2, 8)
    own = log_probs(policy, ids)
    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=BUDGET).eval()
    with torch.no_grad():
        before = model(input_ids=ids)
    for i in range(2):
        expected, _ = laws_by_hand(own[i], log_probs(reference, ids)[i], budget=BUDGET)
        np.testing.assert_allclose(before.logits[i], expected, atol=1e-7)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and "policy" in name for name in trained)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(model.get_parameter(name).grad is not None for name in trained)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trained
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, before.logits)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_the_whole_is_refused():
    model = budgeted()
    with pytest.raises(ModelError, match="an adapter must be the policy's alone"):
        lora(model)


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0.7}, "TemperatureLogitsWarper"),
        ({"top_k": 3}, "TopKLogitsWarper"),
        ({"top_p": 0.9}, "TopPLogitsWarper"),
        ({"repetition_penalty": 1.2}, "RepetitionPenaltyLogitsProcessor"),
        ({"do_sample": False}, "do_sample=False"),
        ({"num_beams": 2}, "num_beams > 1"),
    ],
)
def test_laws_that_no_budget_bounds_are_refused_in_generate(options, name):
    with pytest.raises(InvalidArgumentError, match=f"{name} would write by another law"):
        budgeted().generate(tokens(1, 4), max_new_tokens=2, **options)


def test_a_cache_is_not_reordered_and_is_this_models_own():
    model = budgeted()
    with torch.no_grad():
        cache = model(input_ids=tokens(1, 4), use_cache=True).past_key_values
        other = model.model.policy(input_ids=tokens(1, 4), use_cache=True).past_key_values
    with pytest.raises(InvalidArgumentError, match="drawn one by one: use no beams"):
        cache.reorder_cache(torch.tensor([0]))
    with pytest.raises(InvalidArgumentError, match="what this model returned"):
        model(input_ids=tokens(1, 1), past_key_values=other)


def test_unfit_models_are_refused():
    policy, reference = pair()
    wrap = BudgetedCausalLM.from_models
    with pytest.raises(ModelError, match="policy has 6 tokens and the reference 9"):
        wrap(policy, pair(n_tokens=9)[1], budget_nats=1.0)
    with pytest.raises(ModelError, match="load the reference a second time"):
        wrap(policy, policy, budget_nats=1.0)
    with pytest.raises(ModelError, match="it scales or bounds them"):
        wrap(pair("gemma2, alternating")[0], reference, budget_nats=1.0)
    with pytest.raises(InvalidBudgetError, match="finite number >= 0, got -1"):
        wrap(policy, reference, budget_nats=-1.0)
    policy.lm_head = nn.Sequential(policy.lm_head)
    with pytest.raises(ModelError, match="has Sequential for its output layer"):
        wrap(policy, reference, budget_nats=1.0)


def test_unfit_masks_and_weights_are_refused():
    model = budgeted()
    with pytest.raises(InvalidShapeError, match=r"shape of input_ids, \(1, 4\), got \(1, 3\)"):
        model(input_ids=tokens(1, 4), budget_mask=torch.ones(1, 3))
    with torch.no_grad():
        model.model.policy.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InvalidDistributionError, match="are NaN"):
        model(input_ids=tokens(1, 4))
