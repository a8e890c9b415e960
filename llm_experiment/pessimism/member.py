"""A member that would not have done what an attacker did: for what no feature names.

Where neither a feature nor a phrase answers an attacker, the base model `b` gets a second member
`b'`, and agents are held to the least of both (`llm_experiment.base.ensemble`). `b'` begins as `b`
and learns, from demonstrations, to go on as before, and from the attacker's episodes that what the
attacker departed by is not done:

    loss = mean of -ln b'(x|h) over demonstrations + weight * mean of -ln(1 - b'(x|h)) over attacks

where an attack is a token that the attacker wrote after the same beginning of a turn as in one of
its departures (`pessimism.departures`). Nothing is proved of it: it makes events dear, not
impossible, and is kept only if the least of both passes the audit of `pessimism.proposals`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.loading import load_language_model
from llm_experiment.base.training import Progress, minimise, save_model
from llm_experiment.chat.features import FeatureReader
from llm_experiment.chat.turns import TurnParser
from llm_experiment.pessimism.demonstration_study import DemonstrationStudy
from llm_experiment.pessimism.departures import Departures
from llm_experiment.pessimism.proposals import Departing, departing
from mightnt.progress import progress_bar
from mightnt.results import replacing_folder
from theory.errors import InvalidArgumentError

_LEAST: Final = 1e-6
"""What 1 - b'(x|h) is taken to be at least: beyond, the loss says no more."""


@dataclass(frozen=True, kw_only=True)
class MemberRecipe:
    """How a member learns.

    Attributes:
        n_steps: of the optimiser.
        batch_size: dialogues of each kind in a step.
        learning_rate: its peak.
        weight: of the attacks beside the demonstrations.
        seed: of the order.
    """

    n_steps: int = 400
    batch_size: int = 16
    learning_rate: float = 5e-4
    weight: float = 1.0
    seed: int = 0


def member_for(
    known: DemonstrationStudy, findings: Sequence[Departures], folder: Path
) -> HuggingFaceBase:
    """The member that answers some attackers, from its folder if it is there already.

    Args:
        known: the demonstrations, and the base model.
        findings: what attackers did, in episodes of one length.
        folder: where the member lies, or is to be written.

    Raises:
        InvalidArgumentError: a base model without weights, or attackers that departed in no way
            that a member can learn from.
        ResultsError: the folder cannot be written.
    """
    if not folder.exists():
        imitator = known.imitator
        if not isinstance(imitator.base, HuggingFaceBase):
            raise InvalidArgumentError(
                "a member learns from a language model, and the base model has no weights"
            )
        parser = imitator.reader.parser
        attacks = [
            attacks_in(parser, found, frequent(departing(found, parser))) for found in findings
        ]
        recipe = MemberRecipe()
        with progress_bar() as bar:
            task = bar.add_task("member", total=recipe.n_steps)
            member = train_member(
                imitator.base.model,
                known.dialogue_tokens(),
                np.concatenate([found.tokens for found in findings]),
                np.concatenate(attacks),
                recipe,
                on_progress=lambda done: bar.update(task, completed=done.step),
            )
        with replacing_folder(folder) as new:
            save_model(new, member, imitator.tokenizer)
    return load_language_model(str(folder))


def frequent(events: Counter[Departing]) -> tuple[Departing, ...]:
    """What an attacker departed by more than once: a single one is its base policy's slip."""
    return tuple(event for event, number in events.items() if number > 1)


def attacks_in(
    parser: TurnParser, departures: Departures, events: Collection[Departing]
) -> NDArray[np.bool_]:
    """Which of an attacker's tokens are some of what it departed by, wherever it wrote them.

    Args:
        parser: of the base model's tokenizer.
        departures: of the attacker.
        events: what it departed by.

    Returns:
        Shape (n, t), of its episodes' tokens.
    """
    reader = FeatureReader(parser, ())
    transcripts = torch.from_numpy(departures.tokens)
    found = torch.zeros(transcripts.shape, dtype=torch.bool)
    state = reader.begin(len(transcripts))
    for position, column in enumerate(transcripts.T):
        for event in events:
            length = len(event.so_far)
            alike = state.from_start & (state.count == length) & (column == event.token)
            if length:
                so_far = torch.tensor(event.so_far)
                alike &= (state.tokens[:, :length] == so_far).all(dim=1)
            found[:, position] |= alike
        state = reader.advance(state, column)
    return np.asarray(found.numpy() & departures.own)


def train_member(
    model: PreTrainedModel,
    demonstrations: NDArray[np.int64],
    episodes: NDArray[np.int64],
    attacks: NDArray[np.bool_],
    recipe: MemberRecipe,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> PreTrainedModel:
    """A copy of a language model that learnt from demonstrations and from attacks.

    Args:
        model: the base model; is left as it is.
        demonstrations: dialogues of one length, shape (m, s).
        episodes: an attacker's, shape (n, t).
        attacks: which of their tokens must not be done, shape (n, t); not the first of any.
        recipe: how.
        on_progress: told about twenty times.

    Raises:
        InvalidArgumentError: no attack.
    """
    rows = np.flatnonzero(attacks[:, 1:].any(axis=1))
    if not len(rows):
        raise InvalidArgumentError("a member learns from attacks, and the episodes have none")
    member = copy.deepcopy(model)
    rng = np.random.default_rng(recipe.seed)

    def drawn(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rng.choice(rows, size=min(recipe.batch_size, len(rows)), replace=False)

    def log_probs(tokens: Tensor) -> Tensor:
        logits = member(input_ids=tokens, use_cache=False).logits[:, :-1]
        taken: Tensor = logits.log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]
        return taken

    def loss() -> Tensor:
        good = torch.from_numpy(demonstrations[drawn(np.arange(len(demonstrations)))])
        chosen = drawn(rows)
        bad = torch.from_numpy(episodes[chosen])
        done = log_probs(bad)[torch.from_numpy(attacks[chosen, 1:])].exp()
        never: Tensor = -torch.log1p(-done.clamp(max=1 - _LEAST)).mean()
        return -log_probs(good).mean() + recipe.weight * never

    for parameter in member.parameters():
        parameter.requires_grad_(True)
    minimise(
        member,
        loss,
        n_steps=recipe.n_steps,
        learning_rate=recipe.learning_rate,
        on_progress=on_progress,
    )
    return member.requires_grad_(False)
