"""A finished run made by hand: transcripts that are written down, in the shipped vocabulary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from llm_experiment.base.loading import load_tokenizer
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.turns import Speaker, TurnParser, TurnRules
from llm_experiment.config import AgentConfig, Preset, preset_config
from llm_experiment.records.folder import claim, episodes_file, seal
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
    claim(out, {"agent": agent}, label="written by hand", models={})
    rng = np.random.default_rng(0)

    def store(folder: Path, text: str | None, n_tokens: int, **numbers: float) -> None:
        texts = [text or "".join(rng.permutation(TALK)) for _ in range(n_episodes)]
        folder.mkdir(parents=True, exist_ok=True)
        arrays = episode_arrays(texts, n_tokens=n_tokens, **numbers)
        np.savez_compressed(folder / episodes_file(n_tokens), allow_pickle=False, **arrays)

    rows = []
    for n_tokens in lengths:
        store(out / "base", None, n_tokens)
        for budget, text in budgets.items():
            for seed in seeds:
                name = f"exact-budget{budget:g}-seed{seed}"
                nats = 1 / (1 + budget)
                store(out / "agents" / name, text or None, n_tokens, nats=nats, reward=0.75)
                rows.append(
                    {
                        "agent": name,
                        "variant": "exact budget",
                        "budget_nats": budget,
                        "seed": seed,
                        "n_tokens": n_tokens,
                        "trained_at_n_tokens": lengths[0],
                    }
                )
    write_json(out / "summary.json", {"label": "written by hand", "base": None, "rows": rows})
    seal(out)
    return out
