"""What figures are drawn from: the agents of one experiment, and the toy world's results.

An experiment is read from the folders of its runs (`llm_experiment.records.reading`). Here a *run*
is one trained agent, and the unit of independence: what a figure says of a group of agents that
differ by their seed alone is a mean over runs, and its band is Student's interval over runs.
Transcripts of one agent share its training and are never counted as independent.

The base policy is not trained, and is the agent with a budget of 0. Runs made when agents were
trained at that budget, too, show both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from llm_experiment.chat.turn_records import agent_turns
from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.measures.metrics import BASE_POLICY
from llm_experiment.measures.tables import BASE_ROW
from llm_experiment.records.reading import (
    QUICK_COMMAND,
    RUN_COMMAND,
    Evaluated,
    Experiment,
)
from paper_figures.toy import ToyResults
from theory.errors import MissingDataError

DEFAULT_COMMAND: Final = f"{RUN_COMMAND} --out results/llm"
FULL_COMMAND: Final = f"{RUN_COMMAND} --suite full --out results/llm-full"
N_PUBLISHED_EMPTY_TOKENS: Final = 4
N_SHOWN_BUDGETS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where artefacts get their data.

    Attributes:
        found: the experiment, None if there is no run.
        toy: what the toy worlds' demos found.
    """

    found: Experiment | None
    toy: ToyResults = field(default_factory=ToyResults)

    def experiment(self) -> Experiment:
        """The experiment.

        Raises:
            MissingDataError: there is none.
        """
        if self.found is None:
            raise MissingDataError(
                f"no run: make one with `{QUICK_COMMAND}` (quick) or `{DEFAULT_COMMAND}`, or name "
                "its folder with --runs"
            )
        return self.found


def shown_budgets(experiment: Experiment) -> tuple[float, ...]:
    """The largest positive budgets, as many as the paper shows.

    Raises:
        MissingDataError: none is positive.
    """
    positive = [budget for budget in experiment.budgets_nats if budget > 0]
    if not positive:
        folders = ", ".join(str(run.folder) for run in experiment.folders)
        raise MissingDataError(
            f"no agent with a positive budget in {folders}: train some with `{DEFAULT_COMMAND}`"
        )
    return tuple(positive[-N_SHOWN_BUDGETS:])


def base_is_budget_0(experiment: Experiment) -> bool:
    """Whether the base policy alone stands for a budget of 0: no agent was trained at it."""
    return 0.0 not in experiment.budgets_nats


def base_name(experiment: Experiment) -> str:
    """What the base policy is called in a figure."""
    return BASE_ROW if base_is_budget_0(experiment) else BASE_POLICY


def label_of(evaluated: Sequence[Evaluated]) -> str:
    """The labels of the folders that these come from, each once."""
    return "; ".join(dict.fromkeys(each.label for each in evaluated))


def shown_rule(evaluated: Sequence[Evaluated], behaviour: Behaviour) -> str:
    """Which turns show the behaviour; for silence, beside the published definition."""
    if not behaviour.is_silence:
        return behaviour.say("{Turn}: a finished turn such that {rule}.")
    lengths = []
    for each in evaluated:
        turns, empty, prompt_length = each.episodes.turns()
        own = agent_turns(turns, prompt_length=prompt_length)
        lengths += turns.n_tokens[own & empty].tolist()
    here = f", at most {max(lengths)} tokens with this tokenizer" if lengths else ""
    same = lengths and max(lengths) == N_PUBLISHED_EMPTY_TOKENS
    return (
        "Empty: a finished turn with no more tokens than the separator, the other speaker's name "
        f"and the colon need{here}"
        + ("." if same else f" (published: at most {N_PUBLISHED_EMPTY_TOKENS}, with Mistral's).")
    )
