import re

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_env_of_gymnasium
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from torch import Tensor

from llm_experiment.base.hugging_face import BaseModel, BaseStep, HuggingFaceBase, check_start
from llm_experiment.base.process import ProcessBase
from llm_experiment.chat.lockstep import (
    LARGEST,
    ChatEnv,
    LockstepChat,
    Reply,
    pack_observation,
    sample_tokens,
    unpack_observation,
)
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.dialogue.process import DialogueProcess, load_task
from llm_experiment.tiny_models import new_language_model, transcript_tokenizer
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError, InvalidShapeError

PROCESS = DialogueProcess(load_task("classroom"))
TOKENIZER = transcript_tokenizer(PROCESS)
N_TOKENS = len(PROCESS.vocabulary)
PROMPT = "Student: Hello?\nTeacher:"
SCREENPLAYS = (
    # A reply, an empty turn answered by an empty turn, and a reply that the end cuts short.
    " Yes?\nStudent: No.\nTeacher:\nStudent:\nTeacher: So\nStudent: Maybe.",
    # Names inside lines, typed by either; an opening of the own name; the end is in a name.
    " SoStudent: Yes.\nStudent: SoTeacher: So\nStudent: Okay.\nTeacher: Now\nTeacher: Okay",
    # The agent never hands over the turn.
    " So so so so so so so so so so so so so so so so so so so so so so so so",
)


def tokens_of(text: str) -> Tensor:
    """Names are tokens of their own, wherever they stand."""
    parts = re.split("(Teacher|Student)", text)
    return torch.from_numpy(np.concatenate([PROCESS.encode(part) for part in parts if part]))


def parser(**rules) -> TurnParser:
    return TurnParser.from_tokenizer(TOKENIZER, TurnRules(**rules), n_tokens=N_TOKENS)


def screenplay() -> Tensor:
    """Full transcripts, cut to one length, shape (3, tokens)."""
    rows = [tokens_of(PROMPT + text) for text in SCREENPLAYS]
    length = min(map(len, rows))
    return torch.stack([row[:length] for row in rows])


class Playback:
    """A base policy that is certain of every token of given transcripts, (n, tokens)."""

    def __init__(self, transcripts: Tensor) -> None:
        self.transcripts = transcripts
        self.n_tokens = N_TOKENS
        self.n_features = 2
        self.head = None
        self.device = torch.device("cpu")
        self.agent_wrote: list[list[bool]] = []

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        check_start(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=N_TOKENS
        )
        self.position = len(prompt_tokens)
        return self, self._step()

    def append(self, tokens, *, agent_wrote=None):
        self.agent_wrote.append(agent_wrote.tolist())
        self.position += 1
        return self._step()

    def _step(self) -> BaseStep:
        n, length = self.transcripts.shape
        log_probs = torch.full((n, N_TOKENS), -torch.inf)
        log_probs[torch.arange(n), self.transcripts[:, min(self.position, length - 1)]] = 0.0
        return BaseStep(
            log_probs=log_probs,
            features=torch.full((n, 2), float(self.position)),
            missing_mass=torch.zeros(n),
        )


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
        student_temperature=temperature,
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


def test_the_fraction_left_is_one_formula_from_start_to_end():
    transcripts = screenplay()
    chat = start_chat(Playback(transcripts), n_positions=20)
    while not chat.done:
        assert chat.fraction_left == pytest.approx((20 - chat.tokens.shape[1]) / 20, abs=1e-15)
        chat.step(torch.zeros(3, dtype=torch.int64))
    assert chat.fraction_left == 0
    assert chat.tokens.shape == (3, 20)


def language_model() -> HuggingFaceBase:
    return HuggingFaceBase(new_language_model(PROCESS, seed=3))


def improvise(base: BaseModel, *, seed: int, temperature: float = 1.0) -> Tensor:
    """Transcripts in which the agent always hands over at once."""
    hand_over = tokens_of("\nStudent:")
    chat = start_chat(base, n_positions=24, seed=seed, temperature=temperature)
    for _ in range(24 - chat.prompt_length):
        chat.step(hand_over[min(chat.position - chat.prompt_length, 2)].expand(3))
    return chat.tokens


def test_the_student_s_words_are_a_function_of_the_generator():
    base = language_model()
    first = improvise(base, seed=1)
    assert torch.equal(first, improvise(base, seed=1))
    assert not torch.equal(first, improvise(base, seed=2))
    assert not torch.equal(first[0], first[1])


def test_a_cold_student_says_what_is_likeliest():
    base = language_model()
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


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 6),
    st.floats(0, 1e6), st.floats(0, 1, width=32),
)  # fmt: skip
def test_an_observation_holds_what_was_packed(n, n_tokens, n_features, budget, left):
    generator = torch.Generator().manual_seed(n)
    step = BaseStep(
        log_probs=torch.rand(n, n_tokens, generator=generator).log(),
        features=torch.rand(n, n_features, generator=generator),
        missing_mass=torch.zeros(n),
    )
    budgets = torch.full((n,), budget, dtype=torch.float64)
    packed = pack_observation(step, fraction_left=left, budget_nats=budgets)
    assert packed.dtype == torch.float32
    seen = unpack_observation(packed, n_tokens=n_tokens)
    assert torch.equal(seen.features, step.features)
    assert torch.equal(seen.log_probs, step.log_probs)
    assert (seen.fraction_left == left).all()
    assert (seen.budget_nats.double() <= budgets).all(), "or the ledger could be overspent"
    assert (seen.budget_nats.double() >= budgets * (1 - 2**-23) - 2**-149).all()


def test_observations_too_short_for_the_vocabulary_are_refused():
    with pytest.raises(InvalidShapeError, match=r"\(n, n_features \+ 2 \+ 5\), got \(3, 6\)"):
        unpack_observation(torch.zeros(3, 6), n_tokens=5)


def half(texts):
    return np.full(len(texts), 0.5)


def env_of(base: BaseModel, *, n_positions=30, budget_nats=1.0, score=half, **options) -> ChatEnv:
    return ChatEnv(
        base,
        parser(),
        tokens_of(PROMPT),
        n_positions=n_positions,
        student_temperature=1.0,
        score=score,
        budget_nats=budget_nats,
        **options,
    )


@pytest.mark.parametrize("base", [ProcessBase(PROCESS), language_model()], ids=["process", "lm"])
def test_the_environment_keeps_gymnasium_s_and_stable_baselines_contracts(base):
    env = env_of(base)
    check_env_of_gymnasium(env, skip_render_check=True)
    check_env_of_sb3(env)


def test_a_step_of_the_environment_is_the_agent_s_token_and_the_whole_answer():
    transcripts = screenplay()[:1]
    base = Playback(transcripts)
    scores = {"No.": 0.25, "": 0.5}
    env = env_of(
        base,
        n_positions=transcripts.shape[1],
        score=lambda texts: np.array([scores[text] for text in texts]),
        budget_nats=np.inf,
    )
    observation, _ = env.reset(seed=0)
    text, rewards, replies, done = PROMPT, {}, [], False
    while not done:
        position = env.chat.position
        seen = unpack_observation(torch.from_numpy(observation)[None], n_tokens=N_TOKENS)
        assert float(seen.fraction_left) == pytest.approx(1 - position / transcripts.shape[1])
        assert float(seen.budget_nats) == pytest.approx(LARGEST)
        token = transcripts[0, position].item()
        observation, reward, done, truncated, info = env.step(np.int64(token))
        assert not truncated
        assert env.observation_space.contains(observation)
        text = PROCESS.decode(transcripts[0, : position + 1].tolist())
        if reward:
            rewards[text.count("\n")] = (reward, text.endswith("\nStudent:"))
        replies += info["replies"]
    assert replies == ["No.", ""]
    assert rewards == {2: (0.25, True), 4: (0.5, True)}


def test_the_environment_plays_as_the_lockstep_chat_does():
    base = language_model()
    env = env_of(base, n_positions=40)
    env.reset(seed=11)
    hand_over = tokens_of("\nStudent:").tolist()
    done, texts, i = False, [], 0
    while not done:
        _, _, done, _, info = env.step(np.int64(hand_over[i % 3]))
        texts += info["replies"]
        i += 1
    assert texts == [reply.text for reply in env.chat.replies()]
    transcript = env.chat.tokens.clone()
    env.reset(seed=11)
    for j in range(i):
        env.step(np.int64(hand_over[j % 3]))
    assert torch.equal(env.chat.tokens, transcript)


def test_the_agent_reports_what_a_step_costs():
    env = env_of(ProcessBase(PROCESS), budget_nats=2.0)
    env.reset(seed=0)
    env.charge(kl_nats=0.5)
    observation, *_ = env.step(np.int64(0))
    seen = unpack_observation(torch.from_numpy(observation)[None], n_tokens=N_TOKENS)
    assert float(seen.budget_nats) == 1.5
    with pytest.raises(InvalidBudgetError, match="must not be overspent"):
        env.charge(kl_nats=1.6)
    env.reset(seed=0)
    assert float(env.ledger.remaining_nats) == 2.0
    realized = env_of(ProcessBase(PROCESS), budget_nats=2.0, accounting=Accounting.REALIZED)
    realized.charge(kl_nats=0.5, log_ratio_nats=-1.0)
    assert float(realized.ledger.remaining_nats) == 3.0


def test_impossible_environments_are_refused():
    with pytest.raises(InvalidBudgetError, match="must be >= 0, got -1"):
        env_of(ProcessBase(PROCESS), budget_nats=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"no episode has started; call reset\(\)"):
        env_of(ProcessBase(PROCESS)).step(np.int64(0))


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
        with pytest.raises(InvalidArgumentError, match="student_temperature must be > 0 and fin"):
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
