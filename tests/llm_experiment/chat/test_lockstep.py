import re

import pytest
import torch
from torch import Tensor

from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.lockstep import LockstepChat, Reply, sample_tokens
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from tests.llm_experiment.chat.screenplays import (
    N_TOKENS,
    PROCESS,
    PROMPT,
    TOKENIZER,
    Playback,
    parser,
    screenplay,
    tokens_of,
    untrained_model,
)
from theory.errors import InvalidArgumentError, InvalidShapeError


def start_chat(
    base: BaseModel,
    *,
    n_episodes: int = 3,
    n_positions: int,
    seed: int = 0,
    temperature: float = 1.0,
    prompt: str = PROMPT,
    turns: TurnParser | None = None,
) -> LockstepChat:
    return LockstepChat(
        base,
        turns or parser(),
        tokens_of(prompt),
        n_episodes=n_episodes,
        n_positions=n_positions,
        partner_temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )


def spoken(text: str) -> list[str]:
    """The student's finished replies in a text after the prompt, by regular expressions."""
    found = re.findall(r"^Student:(.*?)\n(?=Teacher:)", text, flags=re.MULTILINE | re.DOTALL)
    return [reply.strip() for reply in found]


def play(transcripts: Tensor) -> tuple[LockstepChat, Playback, list[Reply]]:
    """Perform transcripts: each side says its own lines, and nonsense in the other's."""
    nonsense = torch.full_like(transcripts, N_TOKENS - 1)
    agents = parser().writers(transcripts) == Speaker.AGENT
    base = Playback(torch.where(agents, nonsense, transcripts))
    chat = start_chat(base, n_episodes=len(transcripts), n_positions=transcripts.shape[1])
    replies: list[Reply] = []
    while not chat.done:
        replies += chat.advance(torch.where(agents, transcripts, nonsense)[:, chat.position])
    return chat, base, replies


def test_each_speaker_writes_its_own_lines():
    transcripts = screenplay()
    chat, base, _ = play(transcripts)
    assert torch.equal(chat.tokens, transcripts)
    writers = parser().writers(transcripts)[:, chat.prompt_length :]
    assert torch.tensor(base.agent_wrote).T.tolist() == (writers == Speaker.AGENT).tolist()


def test_a_reply_is_credited_to_the_agent_s_last_step_before_it():
    transcripts = screenplay()
    chat, _, replies = play(transcripts)
    # The colon after the student's name is the agent's last token.
    p = chat.prompt_length
    for reply in replies:
        before = PROCESS.decode(transcripts[reply.episode, : p + reply.agent_step + 1].tolist())
        assert before.endswith("\nStudent:")
        said = transcripts[reply.episode, p + reply.agent_step + 1 :].tolist()
        assert tuple(said[: len(reply.tokens)]) == reply.tokens
        assert PROCESS.decode(reply.tokens).endswith("\nTeacher:")


def test_exactly_the_replies_that_end_are_found_as_they_end_and_afterwards():
    transcripts = screenplay()
    chat, _, replies = play(transcripts)
    texts = {e: [r.text for r in replies if r.episode == e] for e in range(3)}
    assert texts == {0: ["No.", ""], 1: ["SoTeacher: So\nStudent: Okay."], 2: []}
    for episode, row in enumerate(transcripts.tolist()):
        assert texts[episode] == spoken(PROCESS.decode(row[chat.prompt_length :]))
    in_order = sorted(replies, key=lambda reply: (reply.episode, reply.agent_step))
    assert in_order == list(chat.replies())


@pytest.mark.parametrize("ending", ["", "\n", "\nTeacher"])
def test_a_reply_that_the_end_of_the_episode_cuts_short_is_none(ending):
    _, _, replies = play(tokens_of(f"{PROMPT}\nStudent: No.{ending}")[None])
    assert replies == []
    _, _, replies = play(tokens_of(f"{PROMPT}\nStudent: No.\nTeacher:")[None])
    assert [reply.text for reply in replies] == ["No."]


def test_a_reply_that_does_not_end_is_cut_off_by_the_agent_s_name():
    okay = tokens_of(PROMPT + "\nStudent:" + " so" * 30)[None]
    base = Playback(okay)
    chat = start_chat(base, n_episodes=1, n_positions=25, turns=parser(max_reply_tokens=4))
    replies = []
    acted = []
    while not chat.done:
        acted.append(bool(chat.agent_acts))
        replies += chat.advance(okay[:, chat.position] if chat.position < 12 else tokens_of(" So"))
    p = chat.prompt_length
    assert PROCESS.decode(chat.tokens[0, p:].tolist()).startswith(
        "\nStudent: so so so so\nTeacher: So So"
    )
    assert acted == [True] * 3 + [False] * 7 + [True] * (25 - p - 10)
    assert [(reply.text, reply.agent_step) for reply in replies] == [("so so so so", 2)]


def test_a_reply_that_the_partner_ends_with_its_end_of_text_is_handed_back_by_the_agent_s_name():
    """The token "Maybe" stands for the end of a text: the partner writes it after `so so`."""
    end = int(tokens_of(" Maybe")[0])
    said = tokens_of(PROMPT + "\nStudent: so so Maybe" + " so" * 30)[None]
    rules = TurnRules(eos_ends_reply=True, max_reply_tokens=20)
    texts = [PROCESS.decode([token]) for token in range(N_TOKENS)]
    ends = TurnParser(
        rules, pieces=texts, encode=lambda t: tokens_of(t).tolist(), decode=PROCESS.decode, eos=end
    )
    for turns, expected in (
        (ends, "\nStudent: so so Maybe\nTeacher: Maybe Maybe Maybe"),
        (parser(max_reply_tokens=20), "\nStudent: so so Maybe so so so so so so so so"),
    ):
        chat = start_chat(Playback(said), n_episodes=1, n_positions=25, turns=turns)
        while not chat.done:  # the agent's own ends nothing
            chat.advance(said[:, chat.position] if chat.position < 12 else tokens_of(" Maybe"))
        written = PROCESS.decode(chat.tokens[0, chat.prompt_length :].tolist())
        assert written.startswith(expected)


def test_the_fraction_left_is_one_formula_from_start_to_end():
    transcripts = screenplay()
    chat = start_chat(Playback(transcripts), n_positions=20)
    while not chat.done:
        assert chat.fraction_left == pytest.approx((20 - chat.tokens.shape[1]) / 20, abs=1e-15)
        chat.step(torch.zeros(3, dtype=torch.int64))
    assert chat.fraction_left == 0
    assert chat.tokens.shape == (3, 20)


def improvise(base: BaseModel, *, seed: int, temperature: float = 1.0) -> Tensor:
    """Transcripts in which the agent always hands over at once."""
    hand_over = tokens_of("\nStudent:")
    chat = start_chat(base, n_positions=24, seed=seed, temperature=temperature)
    for _ in range(24 - chat.prompt_length):
        chat.step(hand_over[min(chat.position - chat.prompt_length, 2)].expand(3))
    return chat.tokens


def test_the_student_s_words_are_a_function_of_the_generator():
    base = untrained_model()
    first = improvise(base, seed=1)
    assert torch.equal(first, improvise(base, seed=1))
    assert not torch.equal(first, improvise(base, seed=2))
    assert not torch.equal(first[0], first[1])


def test_a_cold_student_says_what_is_likeliest():
    base = untrained_model()
    said = improvise(base, seed=1, temperature=1e-6)
    p = len(tokens_of(PROMPT)) + 3
    session, step = base.begin(said[0, :p], n_episodes=1, n_positions=24)
    for token in said[0, p:]:
        assert token == step.log_probs[0].argmax()
        step = session.append(token[None])
    assert (said == said[0]).all()


def test_draws_have_the_frequencies_of_the_softmax():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    n = 100_000
    draws = sample_tokens(
        (3 * probabilities.log()).expand(n, -1) / 3, generator=torch.Generator().manual_seed(5)
    )
    seen = torch.bincount(draws, minlength=6) / n
    deviation = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((seen - probabilities).abs() <= 5 * deviation).all()  # 0 where they are 0


@pytest.mark.parametrize(("uniform", "drawn"), [(0.0, 1), (1 - 2**-53, 3)])
def test_at_the_ends_of_the_range_of_numbers_no_impossible_token_is_drawn(
    monkeypatch, uniform, drawn
):
    number = torch.tensor([[uniform]], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: number)
    logits = torch.tensor([[0.0, 0.3, 0.4, 0.3, 0.0]]).log()
    assert sample_tokens(logits, generator=torch.Generator()).tolist() == [drawn]
    memory = torch.full((1, 5), torch.nan, dtype=torch.float64)
    found = sample_tokens(logits.double(), generator=None, normalised=True, memory=memory)
    assert found.tolist() == [drawn]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Teacher: Yes?\nParent:", "a line that begins with 'Student:', got none"),
        ("Student: Yes?\nParent:", "a line that begins with 'Teacher:', got none"),
        (" Yes?Student: Yes?\nTeacher:", "a line that begins with 'Student:', got none"),
        ("Teacher: Yes?\nStudent:", "must leave the turn to the agent; end it with 'Teacher:'"),
        (PROMPT + " so" * 20, "the prompt has 27 tokens and the episode only 20"),
    ],
)
def test_a_prompt_that_cannot_start_a_chat_is_refused(prompt, message):
    with pytest.raises(InvalidArgumentError, match=message):
        start_chat(ProcessBase(PROCESS), n_positions=20, prompt=prompt)


def test_a_chat_refuses_what_it_cannot_play():
    base = ProcessBase(PROCESS)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidArgumentError, match="partner_temperature must be > 0 and fin"):
            start_chat(base, n_positions=20, temperature=temperature)
    other = TurnParser.from_tokenizer(TOKENIZER, TurnRules(), n_tokens=N_TOKENS + 1)
    with pytest.raises(InvalidArgumentError, match=f"knows {N_TOKENS + 1} tokens .* {N_TOKENS};"):
        start_chat(base, n_positions=20, turns=other)
    chat = start_chat(base, n_positions=8)
    with pytest.raises(InvalidShapeError, match=r"must have shape \(3,\), got \(2,\)"):
        chat.step(torch.zeros(2, dtype=torch.int64))
    chat.step(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InvalidArgumentError, match="complete at 8 tokens; start a new chat"):
        chat.step(torch.zeros(3, dtype=torch.int64))
