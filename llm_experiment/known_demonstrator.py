"""Near to the imitator, infinitely far from the demonstrator: Proposition 1 on any language model.

    python -m llm_experiment.known_demonstrator --preset smollm2 --runs results/smollm2

Of a language model nobody knows the demonstrator. Here it is a known one: the model itself, but
for the agent's turns without words, which it never writes (`llm_experiment.chat.never_silent`).
The command lets it play dialogues. What these cost it is its KL to the model, for which the model
is a good imitator by construction. It writes them as demonstrations, from which
`llm_experiment.vetoes` can learn what the demonstrator never does; and of every agent of finished
runs it says how near it stayed to the model, and in how many episodes it did what the demonstrator
never does. One such episode makes KL to the demonstrator infinite.

Dialogues are kept as they are played, in `played/` of its folder: the same command goes on where it
was interrupted, and with further runs plays nothing again.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from llm_experiment.config import (
    Preset,
    WorldConfig,
    at_least,
    check_vocabularies,
    preset_config,
)
from llm_experiment.dialogue.task import load_task
from llm_experiment.settings import starting_preset
from mightnt.command_line import parse_command_line, run_command
from mightnt.progress import track
from mightnt.results import check_writable, to_jsonable, write_atomically, write_json
from mightnt.table_files import write_tables
from mightnt.tables import Column, Table, Written, print_table
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llm_experiment.chat.world import World

PROG: Final = "python -m llm_experiment.known_demonstrator"
RESULT_FILE: Final = "distances.json"
DEMONSTRATIONS_FILE: Final = "demonstrations.jsonl"
PLAYED: Final = "played"
"""The folder of dialogues that are kept, a file for those that were played together."""
_STREAM: Final = 5_000_000
"""Dialogues of this command draw from streams that nothing else draws from."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A demonstrator that is known exactly, on any language model: its KL, and that of agents."""

    out: Path = Path("results/known-demonstrator")
    """Folder for the table and the demonstrations."""
    runs: tuple[Path, ...] = ()
    """Folders of finished runs in the same world, whose agents are to be measured."""
    preset: Preset = Preset.TINY
    """Where the base model and the dialogue below start from."""
    world: Annotated[WorldConfig, tyro.conf.arg(name="")] = field(default_factory=WorldConfig)
    """The base model and the dialogue."""
    n_dialogues: int = 64
    """Dialogues of the demonstrator, and as many of the base model."""
    n_tokens: int = 256
    """Length of a dialogue in tokens, the prompt included."""
    at_once: int = 64
    """Dialogues that are played together; more need more memory."""
    seed: int = 0
    """Seed of the dialogues."""

    def __post_init__(self) -> None:
        for name in ("n_dialogues", "n_tokens", "at_once"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        load_task(self.world.task)
        check_vocabularies(self.world)
        if self.world.is_pessimistic:
            raise InvalidArgumentError(
                "the demonstrator is made of the language model as it is; leave out --vetoes and "
                "--members (the agents of --runs may have had them)"
            )


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far a policy is from the base model and from the demonstrator.

    Attributes:
        policy: whose.
        n_episodes: that were played.
        kl_to_base_nats: KL of an episode to the base model (of an agent under vetoes: to what they
            leave of it, as its budget was charged): the mean.
        kl_to_base_nats_max: the largest.
        wordless_share: share of episodes with a token that the demonstrator never writes.
        interval: 95% Clopper-Pearson, of that share.
    """

    policy: str
    n_episodes: int
    kl_to_base_nats: float
    kl_to_base_nats_max: float
    wordless_share: float
    interval: tuple[float, float]

    @property
    def kl_to_demonstrator_nats(self) -> float | None:
        """Infinite if an episode left the demonstrator's support; None if none did."""
        return math.inf if self.wordless_share > 0 else None


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Dialogues that a policy played.

    Attributes:
        tokens: with the prompt, shape (n, t).
        ends: how many of them stand before the turn that the episode's end cuts off, shape (n,).
        spent_nats: what acting cost, shape (n,).
    """

    tokens: NDArray[np.int64]
    ends: NDArray[np.int64]
    spent_nats: NDArray[np.float64]


def measure(options: Options, world: "World") -> tuple[tuple[Distance, ...], Dialogues]:
    """The demonstrator, the base model and the agents of runs; and the demonstrator's dialogues.

    Demonstrations are written before the base model begins to play.

    Raises:
        ResultsError: a run that is unfinished, or cannot be read.
        InvalidArgumentError: a run of another base model or with other names.
    """
    from llm_experiment.chat.never_silent import never_silent_base

    never_silent = replace(world, base=never_silent_base(world.base, world.parser))
    demonstrator = _play(options, never_silent, "the demonstrator")
    write_demonstrations(options.out / DEMONSTRATIONS_FILE, world, demonstrator)
    base = _play(options, world, "the base model")
    rows = [
        _distance("demonstrator", world, demonstrator.tokens, demonstrator.spent_nats),
        _distance("base model", world, base.tokens, base.spent_nats),
    ]
    return (*rows, *_agents(options, world)), demonstrator


def _play(options: Options, world: "World", what: str) -> Dialogues:
    """Dialogues in which a world's base policy speaks for both; missing mass is charged."""
    from llm_experiment.agent.rollout import batches

    made_with = json.dumps(to_jsonable(replace(options, out=Path(), runs=())))
    lots = list(batches(options.n_dialogues, options.at_once, stream=(_STREAM,)))
    played = []
    for number, (n_together, path) in enumerate(track(lots, what, total=len(lots))):
        file = options.out / PLAYED / f"{what.removeprefix('the ').replace(' ', '-')}-{number}.npz"
        lot = _kept(file, made_with)
        if lot is None:
            lot = _play_lot(options, world, n_together, path)
            _keep(file, made_with, lot)
        played.append(lot)
    return Dialogues(
        tokens=np.concatenate([lot.tokens for lot in played]),
        ends=np.concatenate([lot.ends for lot in played]),
        spent_nats=np.concatenate([lot.spent_nats for lot in played]),
    )


def _play_lot(options: Options, world: "World", n: int, stream: tuple[int, ...]) -> Dialogues:
    from llm_experiment.agent.rollout import play_episodes
    from llm_experiment.measures.evaluation import BasePolicy
    from theory.budget import Accounting

    rollout = play_episodes(
        BasePolicy(world),
        world,
        n_episodes=n,
        n_tokens=options.n_tokens,
        budget_nats=math.inf,
        accounting=Accounting.EXACT,
        seed=options.seed,
        stream=stream,
        keep_observations=False,
    )
    ends = np.full(n, len(world.prompt_tokens))
    finished = rollout.turns.finished
    np.maximum.at(ends, rollout.turns.episode[finished], rollout.turns.closed[finished] + 1)
    return Dialogues(tokens=rollout.tokens, ends=ends, spent_nats=rollout.spent_nats)


def _keep(file: Path, made_with: str, lot: Dialogues) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {**asdict(lot), "made_with": np.array(made_with)}
    write_atomically(file, lambda path: np.savez_compressed(path, allow_pickle=False, **arrays))


def _kept(file: Path, made_with: str) -> Dialogues | None:
    """What was kept, if the same options made it; a broken file is as none."""
    from llm_experiment.records.job_result import UNREADABLE

    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            arrays = dict(stored)
        if str(arrays.pop("made_with")) != made_with:
            return None
        return Dialogues(**arrays)
    except (*UNREADABLE, LookupError, TypeError):
        return None


def _distance(policy: str, world: "World", tokens: object, spent_nats: object) -> Distance:
    import torch

    from llm_experiment.chat.never_silent import WordReader
    from mightnt.statistics import CONFIDENCE, share_interval

    transcripts = torch.as_tensor(np.asarray(tokens), device=world.base.device)
    reader = WordReader(world.parser, world.base.device)
    first = reader.first_wordless(transcripts, start=len(world.prompt_tokens))
    count, n = int((first < transcripts.shape[1]).sum()), len(transcripts)
    interval = share_interval(count, n, confidence=CONFIDENCE)
    spent = np.asarray(spent_nats)
    return Distance(
        policy=policy,
        n_episodes=n,
        kl_to_base_nats=float(spent.mean()),
        kl_to_base_nats_max=float(spent.max()),
        wordless_share=count / n,
        interval=(interval.low, interval.high),
    )


def _agents(options: Options, world: "World") -> list[Distance]:
    """The agents of runs, at every length at which they were evaluated."""
    from llm_experiment.records.reading import read_run

    found = []
    for folder in options.runs:
        run = read_run(folder)
        run.check_finished()
        theirs = run.agent.world
        same = ("base_model", "agent_name", "partner_name", "separator", "prompt", "task")
        for name in same:
            if getattr(theirs, name) != getattr(options.world, name):
                raise InvalidArgumentError(
                    f"{folder} was made with {name} {getattr(theirs, name)!r} and not "
                    f"{getattr(options.world, name)!r}; give this command the run's options"
                )
        held = ", vetoed" if theirs.is_pessimistic else ""
        for agent in (each for evaluations in run.agents.values() for each in evaluations):
            stored = agent.episodes.arrays("tokens", "spent_nats")
            name = (
                f"{agent.variant}{held}, {agent.budget_nats:g} nats, seed {agent.seed}, "
                f"{agent.n_tokens} tokens"
            )
            found.append(_distance(name, world, stored["tokens"], stored["spent_nats"]))
    return found


def to_table(distances: Sequence[Distance]) -> Table:
    """The distances, for a person."""
    return Table(
        name="policies",
        title="Near to the imitator, far from the demonstrator",
        columns=(
            Column(header="policy"),
            Column(header="episodes", format=".0f"),
            Column(header="KL to model\n(nats)", format=".3f"),
            Column(header="largest", format=".3f"),
            Column(header="wordless", format=".0%"),
            Column(header="KL to\ndemonstrator", format=".3f"),
        ),
        rows=tuple(
            (
                d.policy,
                d.n_episodes,
                d.kl_to_base_nats,
                d.kl_to_base_nats_max,
                Written(
                    f"{d.wordless_share:.0%} ({d.interval[0]:.0%} to {d.interval[1]:.0%})",
                    {"": d.wordless_share, "low": d.interval[0], "high": d.interval[1]},
                ),
                d.kl_to_demonstrator_nats,
            )
            for d in distances
        ),
        notes=(
            "The demonstrator is the model without turns of the agent that have no words, "
            "renormalised where one would go on so. Wordless: episodes with a token that it never "
            "writes, with 95% intervals over episodes; a single one makes KL to it infinite. "
            "By the letter it is infinite of the model, too, and of every agent without vetoes: a "
            "softmax gives everything some probability.",
            "KL to model: as budgets were charged, under vetoes to what they leave of it.",
        ),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, print."""

    def command() -> None:
        preset = starting_preset(argv)
        start = Options(preset=preset, world=preset_config(preset).world)
        _run(parse_command_line(Options, argv, prog=PROG, default=start), Console())

    run_command(command)


def _run(options: Options, console: Console) -> None:
    """Play, measure, write and print."""
    from llm_experiment.chat.world import check_world, load_world

    file = options.out / RESULT_FILE
    check_writable(file)
    check_world(options.world, lengths=(options.n_tokens,))
    world = load_world(options.world)
    distances, _ = measure(options, world)
    write_json(file, {"options": options, "distances": distances})
    table = to_table(distances)
    print_table(table, console)
    for path in (file, *write_tables(file, [table]), options.out / DEMONSTRATIONS_FILE):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def write_demonstrations(path: Path, world: "World", dialogues: Dialogues) -> None:
    """Dialogues, one a line, as `llm_experiment.vetoes` reads them.

    The prompt is given apart, since the demonstrator did not write it. A dialogue that the
    episode's end cuts off within a turn ends before it.
    """
    prompt = world.parser.text(world.prompt_tokens.tolist())
    lines: list[str] = []
    for tokens, end in zip(dialogues.tokens, dialogues.ends, strict=True):
        text = world.parser.text(tokens[:end].tolist())
        line = {"prompt": prompt, "transcript": text.removeprefix(prompt)}
        lines.append(json.dumps(line, ensure_ascii=False))
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
