"""A finished run made by hand: transcripts that are written down, in the shipped vocabulary."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from llm_experiment.base.loading import load_tokenizer
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.config import AgentConfig, Preset, preset_config
from llm_experiment.measures.metrics import (
    AgentRow,
    BaseEvaluation,
    Behaviour,
    EvaluationRow,
    LengthRow,
    Spending,
    base_to_json,
    row_to_json,
)
from llm_experiment.records.folder import (
    AGENTS,
    BASE,
    RESULT_FILE,
    claim_folder,
    episodes_file,
    record_hashes,
)
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig
from mightnt.results import write_json

PROMPT = "These are private conversations.\nTeacher:"
TALK = (
    " What looks new?\nStudent: I like my report.\nTeacher: Do you think the story is boring?\n",
    " Yes?\nStudent: I have a question about my project.\nTeacher: Good! Your plan sounds clear.\n",
    " Why are you so quiet?\nStudent: Sorry.\nTeacher: You are ready to write the letter today.\n",
)
SILENCE = "\nStudent:\nTeacher:" * 5 + "\n"


def tokenizer():
    return load_tokenizer(str(language_model_folder("classroom")))


def parser() -> TurnParser:
    words = tokenizer()
    return TurnParser.from_tokenizer(words, TurnRules(), n_tokens=len(words))


def episode_arrays(
    texts: Sequence[str], *, n_tokens: int, nats: float = 1.0, reward: float = 0.5
) -> dict[str, np.ndarray]:
    """What `Rollout.arrays` stores of transcripts, as far as it is judged.

    Args:
        texts: what follows the prompt; the last of it is repeated up to `n_tokens`.
        n_tokens: of a transcript.
        nats: `-log b` of each of the agent's tokens.
        reward: of each reply.
    """
    words, reader = tokenizer(), parser()
    prompt = words.encode(PROMPT, add_special_tokens=False)
    rows = []
    for text in texts:
        played = words.encode(text, add_special_tokens=False)
        repeats = -(-n_tokens // len(played))
        rows.append((prompt + played * repeats)[:n_tokens])
    tokens = torch.tensor(rows)
    turns = reader.find_turns(tokens)
    replied = (turns.speaker == Speaker.PARTNER) & turns.finished
    writers = reader.writers(tokens).numpy()
    agent = (writers == Speaker.AGENT) & (np.arange(n_tokens) >= len(prompt))
    return {
        "prompt_length": np.asarray(len(prompt)),
        "tokens": tokens.numpy(),
        "writers": writers,
        "log_ratio_nats": np.where(agent, 0.25, 0.0),
        "log_probs": np.where(agent, 0.25 - nats, 0.0),
        "reply_episode": turns.episode[replied],
        "reply_rewards": np.full(int(replied.sum()), reward),
    }


def write_run(
    out: Path,
    *,
    budgets: Mapping[float, str],
    seeds: Sequence[int] = (0, 1, 2),
    lengths: Sequence[int] = (60,),
    n_episodes: int = 12,
    agent: AgentConfig | None = None,
) -> Path:
    """A finished run.

    Args:
        out: its folder.
        budgets: what agents of each budget say.
        seeds: of the agents of each budget.
        lengths: of the episodes.
        n_episodes: of each.
        agent: settings of the run; the preset's if left out.
    """
    agent = agent or preset_config(Preset.TINY)
    suite = SuiteConfig(
        budgets_nats=tuple(budgets),
        n_seeds=len(seeds),
        realized_budgets_nats=(),
        control_shifts=(),
        evaluation_lengths=tuple(lengths),
    )
    settings = Settings(agent=agent, agents=suite)
    claim_folder(out, settings, label="written by hand", models={})
    rng = np.random.default_rng(0)

    def store(folder: Path, text: str | None, n_tokens: int, **numbers: float) -> None:
        texts = [text or "".join(rng.permutation(TALK)) for _ in range(n_episodes)]
        folder.mkdir(parents=True, exist_ok=True)
        arrays = episode_arrays(texts, n_tokens=n_tokens, **numbers)
        np.savez_compressed(folder / episodes_file(n_tokens), allow_pickle=False, **arrays)

    numbers = EvaluationRow(spending=Spending(n_episodes=n_episodes), behaviour=Behaviour())
    rows = defaultdict(list)
    for n_tokens in lengths:
        store(out / BASE, None, n_tokens)
        for budget, text in budgets.items():
            for seed in seeds:
                name = f"exact-budget{budget:g}-seed{seed}"
                nats = 1 / (1 + budget)
                store(out / AGENTS / name, text or None, n_tokens, nats=nats, reward=0.75)
                row = AgentRow(
                    agent=name,
                    variant="exact budget",
                    budget_nats=budget,
                    seed=seed,
                    n_tokens=n_tokens,
                    trained_at_n_tokens=lengths[0],
                    numbers=numbers,
                )
                rows[name].append(row_to_json(row))
    for name, own in rows.items():
        write_json(out / AGENTS / name / RESULT_FILE, own)
    base = BaseEvaluation(
        rows=tuple(LengthRow(n_tokens=n_tokens, numbers=numbers) for n_tokens in lengths),
        n_contexts=0,
    )
    write_json(out / BASE / RESULT_FILE, base_to_json(base))
    record_hashes(out)
    return out
