import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.features import FEATURES
from llm_experiment.chat.veto_set import VetoSet, vocabulary_hash
from llm_experiment.chat.vetoed import vetoed_base
from llm_experiment.pessimism.generate import VetoLogitsProcessor
from tests.llm_experiment.chat.screenplays import PROCESS, parser
from tests.llm_experiment.chat.test_veto_set import (
    PARSER,
    SILENCE,
    coverage,
    factors_by_text,
    veto,
    veto_set,
)
from tests.llm_experiment.fakes.small_world import NEWLINE, NO, PIECES, PLEASE, YES, encode
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.errors import InvalidArgumentError, InvalidDistributionError, ModelError

N = len(PIECES)
PROMPTS = ("S: no\nT:", "S: yes please\nT: no")
PAD = PLEASE
"""A pad with text: rows must not read it."""


def padded(prompts=PROMPTS, pad=PAD):
    rows = [encode(prompt) for prompt in prompts]
    longest = max(map(len, rows))
    return torch.tensor([[pad] * (longest - len(row)) + row for row in rows])


def processor(*vetoes, **options):
    given = {"pad_token": PAD, "stop_token": YES, "limit": 1.0}
    return VetoLogitsProcessor(veto_set(*vetoes), PARSER, **(given | options))


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------- what it does to logits


def test_what_is_vetoed_gets_no_logit_and_the_rest_stays_as_it_is():
    given = veto_set(SILENCE)
    scores = logits(2, N)
    vetoing = processor(SILENCE)
    after = vetoing(padded(), scores)
    for i, prompt in enumerate(PROMPTS):
        factors = torch.tensor(factors_by_text(prompt, given))
        assert torch.equal(after[i], scores[i] + factors.log())
    assert after[0, NEWLINE] == -math.inf
    theta = float(scores[0].softmax(dim=-1)[NEWLINE])
    assert vetoing.help.missing.tolist() == pytest.approx([theta, 0.0])
    assert vetoing.help.steps.tolist() == [1, 1]
    assert vetoing.help.most.tolist() == pytest.approx([theta, 0.0])
    assert vetoing.help.help_per_step == pytest.approx(theta / 2)


def test_pads_are_no_part_of_a_text():
    after_words = veto("opening_after_reply", 2, NO)
    scores = logits(2, N)
    after = processor(after_words)(padded(), scores)
    (alone,) = processor(after_words)(padded(PROMPTS[:1]), scores[:1])
    assert torch.equal(after[0], alone)
    assert after[0].isneginf().nonzero().tolist() == [[NO]]


def test_tokens_are_read_on_as_if_read_from_the_start():
    tail = torch.tensor([encode(" yes\nS: no\nT:"), encode("\nS: yes\nT: no")])
    ids = torch.cat([padded(), tail], dim=1)
    start = padded().shape[1]
    vetoing = processor(SILENCE)
    for t in range(start, ids.shape[1] + 1):
        scores = logits(2, N, seed=t)
        on = vetoing(ids[:, :t], scores)
        texts = [
            prompt + "".join(PIECES[x] for x in ids[i, start:t]) for i, prompt in enumerate(PROMPTS)
        ]
        factors = torch.tensor([factors_by_text(text, veto_set(SILENCE)) for text in texts])
        assert torch.equal(on, scores + factors.log())


def test_above_the_limit_a_text_ends_with_the_stop_token_and_is_told():
    scores = torch.zeros(2, N)  # 1/7 of silence
    vetoing = processor(SILENCE, limit=0.1)
    after = vetoing(padded(), scores)
    assert after[0].tolist() == [0.0 if x == YES else -math.inf for x in range(N)]
    assert torch.equal(after[1], scores[1])
    assert vetoing.help.stopped.tolist() == [True, False]
    # What is written after the end is nobody's.
    ids = torch.cat([padded(), torch.tensor([[YES], [YES]])], dim=1)
    vetoing(ids, scores)
    assert vetoing.help.steps.tolist() == [1, 2]


def test_where_nothing_is_left_no_limit_helps():
    covered = tuple(coverage(f.name, factor=0.0, end_factor=0.0) for f in FEATURES)
    vetoing = VetoLogitsProcessor(
        veto_set(covered=covered), PARSER, pad_token=PAD, stop_token=YES, limit=1.0
    )
    after = vetoing(padded(), logits(2, N))
    assert after.isneginf().sum(dim=1).tolist() == [N - 1] * 2
    assert vetoing.help.stopped.all()


def test_without_a_stop_token_too_much_missing_is_an_error():
    vetoing = processor(SILENCE, limit=0.1, stop_token=None)
    with pytest.raises(InvalidDistributionError, match=r"misses 0.143 of its mass .*\(limit 0.1\)"):
        vetoing(padded(), torch.zeros(2, N))


# ------------------------------------------------------------------------- in generate


def classroom():
    folder = language_model_folder("classroom")
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def classroom_vetoes() -> VetoSet:
    words = parser()
    return replace(
        veto_set(SILENCE, covered=(coverage("said_so_far"),)),
        tokenizer=vocabulary_hash(words),
        n_tokens=words.n_tokens,
        agent="Teacher",
        partner="Student",
    )


def generated(n, *, vetoed, **options):
    """Texts after a prompt at which the model would mostly say nothing, and their processor."""
    note = PROCESS.task.note
    texts = (f"{note}Student:\nTeacher: Hello?\nStudent:\nTeacher:", f"{note}Student:\nTeacher:")
    pad = 0
    rows = [PROCESS.encode(text).tolist() for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows] * n)
    vetoing = VetoLogitsProcessor(
        classroom_vetoes(), parser(), pad_token=pad, stop_token=options.pop("stop", 1),
        limit=options.pop("limit", 1.0),
    )  # fmt: skip
    torch.manual_seed(0)
    out = classroom().generate(
        ids,
        attention_mask=(ids != pad).long(),
        max_new_tokens=8,
        pad_token_id=pad,
        eos_token_id=1,
        logits_processor=[vetoing] if vetoed else [],
        **options,
    )
    return [PROCESS.decode(row) for row in out[:, longest:].tolist()], vetoing


@pytest.mark.parametrize("do_sample", [True, False])
def test_the_agent_is_never_silent_in_generate(do_sample):
    plain, _ = generated(16, vetoed=False, do_sample=True)
    assert any(text.startswith("\n") for text in plain)
    texts, vetoing = generated(16, vetoed=True, do_sample=do_sample)
    assert not any(text.startswith("\n") for text in texts)
    assert not vetoing.help.stopped.any()
    assert float(vetoing.help.most.max()) > 0.05
    assert all(text.strip() for text in texts)


def test_texts_that_miss_too_much_end_at_once():
    texts, vetoing = generated(4, vetoed=True, do_sample=True, limit=0.05)
    assert vetoing.help.stopped.any()
    for text, stopped in zip(texts, vetoing.help.stopped.tolist(), strict=True):
        assert text.startswith("<unk>") == stopped


def test_beams_are_refused():
    with pytest.raises(InvalidArgumentError, match="no beams, which exchange texts between rows"):
        generated(2, vetoed=True, do_sample=False, num_beams=4)


def test_generate_samples_from_the_vetoed_law():
    model = tiny_model("llama, tied", n_tokens=N).eval()
    base = HuggingFaceBase(model)
    vetoed = vetoed_base(base, veto_set(SILENCE), PARSER)
    ids = torch.tensor([encode(PROMPTS[0])])
    _, step = vetoed.begin(ids[0], n_episodes=1, n_positions=ids.shape[1] + 1)
    with torch.no_grad():
        scores = model(ids).logits[:, -1]
    law = processor(SILENCE)(ids, scores).softmax(dim=-1)
    torch.testing.assert_close(law, step.log_probs.exp(), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------ refusals


def test_a_processor_is_for_one_call():
    vetoing = processor(SILENCE)
    with pytest.raises(InvalidArgumentError, match="before generate was called"):
        _ = vetoing.help
    vetoing(padded(), logits(2, N))
    with pytest.raises(InvalidArgumentError, match="one VetoLogitsProcessor for one"):
        vetoing(padded(), logits(2, N))


def test_prompts_must_leave_the_agent_the_turn():
    prompts = ("S: no\nT:", "S: no\nT: no\nS:")
    with pytest.raises(InvalidArgumentError, match=r"prompt 1 must leave the turn .* with 'T:'"):
        processor(SILENCE)(padded(prompts), logits(2, N))


def test_unfit_arguments_are_refused():
    with pytest.raises(
        InvalidArgumentError, match="knows 7 tokens and the model gives logits of 8"
    ):
        processor(SILENCE)(padded(), logits(2, N + 1))
    with pytest.raises(InvalidArgumentError, match=r"stop_token must lie in 0\.\.6, got 7"):
        processor(SILENCE, stop_token=7)
    with pytest.raises(ModelError, match="another tokenizer"):
        VetoLogitsProcessor(veto_set(SILENCE), parser(), pad_token=0, stop_token=1)
