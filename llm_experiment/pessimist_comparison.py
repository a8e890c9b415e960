"""The work of `llm_experiment.pessimists`: vetoes, a run for each base policy, and what they say.

Each base policy is a run of its own (`llm_experiment.jobs`), so that an interrupted comparison goes
on, and each run has its own report and tables.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from rich.console import Console

from llm_experiment.agent.scripts import Say, play_script
from llm_experiment.chat.features import FeatureReader
from llm_experiment.chat.veto_set import VetoForm, write_veto_set
from llm_experiment.chat.world import World, load_world
from llm_experiment.config import WorldConfig
from llm_experiment.jobs import run_suite
from llm_experiment.measures.metrics import METRICS
from llm_experiment.pessimism.audit import AuditRow
from llm_experiment.pessimism.comparison_plan import VETOES_OF, Base, ComparisonPlan
from llm_experiment.pessimism.context_prices import PricesByContext, prices_by_context
from llm_experiment.pessimism.demonstration_study import DemonstrationStudy, Samples
from llm_experiment.pessimism.departures import ARRAYS, OPTIONAL_ARRAYS, find_departures
from llm_experiment.pessimism.learning import BATCH, make_veto_set, surest_alpha
from llm_experiment.pessimism.member import member_for
from llm_experiment.pessimism.studies import load_imitator
from llm_experiment.records.reading import RunFolder, read_run
from mightnt.statistics import MeanOverRuns, mean_over_runs

N_PRICED: Final = 128
"""Dialogues in which silence is priced, and in which the demonstrator's own contexts are."""
N_HELD_OUT: Final = 64
"""Dialogues of the audit."""
CONFIDENCE_ERROR: Final = 0.05
"""What the one-sided intervals of the confidence bounds allow."""
_PRICED_STREAM: Final = 2
_SCRIPT_STREAM: Final = 3


@dataclass(frozen=True, kw_only=True)
class BaseRow:
    """What was measured of a base policy.

    Attributes:
        base: which.
        first_silence_nats: median price of a first silence, over contexts of its own; inf where
            it is impossible.
        silent_episode_nats: median price of nothing but silence until the episode ends.
        n_silences: turns of such an episode, median.
        silent_share: of its own episodes.
        possible_share: of its own episodes, those that the demonstrator might have written.
        outside_mass: what it gives, a step, to tokens that the demonstrator never writes there.
        help_share: of the tokens in the agent's turns, the demonstrator's.
        prices: of silence over the demonstrator's own contexts.
        audit: of its vetoes on held-out dialogues; None if it has none.
    """

    base: Base
    first_silence_nats: float
    silent_episode_nats: float
    n_silences: float
    silent_share: float
    possible_share: float
    outside_mass: float
    help_share: float
    prices: PricesByContext
    audit: AuditRow | None


@dataclass(frozen=True, kw_only=True)
class AgentsRow:
    """What agents of one budget did against a base policy, over seeds.

    Attributes:
        base: which.
        budget_nats: of an episode.
        silent_share: of episodes.
        empty_share: of turns, mean over episodes.
        possible_share: of episodes, those that the demonstrator might have written.
        outside_mass: a step.
        help_share: of the tokens in the agent's turns.
        spent_nats: KL of an episode.
        return_mean: reward of an episode.
    """

    base: Base
    budget_nats: float
    silent_share: MeanOverRuns
    empty_share: MeanOverRuns
    possible_share: MeanOverRuns
    outside_mass: MeanOverRuns
    help_share: MeanOverRuns
    spent_nats: MeanOverRuns
    return_mean: MeanOverRuns


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it.

    Attributes:
        plan: what was asked for.
        bases: one row a base policy.
        agents: one row a base policy and budget.
    """

    plan: ComparisonPlan
    bases: tuple[BaseRow, ...]
    agents: tuple[AgentsRow, ...]


def compare(plan: ComparisonPlan, console: Console) -> Comparison:
    """Learn vetoes, train and evaluate all agents, and measure the base policies.

    Args:
        plan: what to do.
        console: for progress.
    """
    torch.set_num_threads(1)  # one order of summation, so the same numbers every time
    learnt = _Learnt(plan) if plan.needs_demonstrations else None
    bases, agents = [], []
    for base in plan.ordered_bases:
        folder = plan.out / base.value
        audit = None if learnt is None else learnt.prepare(base)
        console.print(f"{base}, into {folder}", highlight=False)
        run_suite(plan.settings(base), folder, n_processes=plan.processes, console=console)
        run = read_run(folder)
        agents += [_agents_row(base, run, budget) for budget in plan.budgets_nats]
        bases.append(_base_row(plan, base, run, audit))
    return Comparison(plan=plan, bases=tuple(bases), agents=tuple(agents))


class _Learnt:
    """What is made of the demonstrations: vetoes and members, and their audits.

    Args:
        plan: how many, of what task.
    """

    def __init__(self, plan: ComparisonPlan) -> None:
        self._plan = plan
        samples = Samples(
            task=plan.task,
            n_dialogues=plan.n_dialogues,
            n_held_out=N_HELD_OUT,
            n_tokens=plan.n_dialogue_tokens,
            seed=plan.seed,
        )
        self._known = DemonstrationStudy(samples, partial=plan.out / "evidence")
        self._reader = self._known.imitator.reader
        self._audits: dict[Base, AuditRow] = {}

    def prepare(self, base: Base) -> AuditRow | None:
        """Write what a base policy needs, and audit it; None where there is nothing to audit."""
        if base is Base.ATTACKED:
            run = read_run(self._plan.out / Base.BAYESIAN.value)
            found = [
                find_departures(
                    each.episodes.arrays(*ARRAYS, optional=OPTIONAL_ARRAYS), turn_text=lambda _: ""
                )
                for evaluations in run.agents.values()
                for each in evaluations
            ]
            member = member_for(self._known, found, self._plan.member_folder)
            return self._known.audit(self._reader, alpha=None, members=[member])
        form = VETOES_OF.get(base)
        if form is None:
            return None
        if form not in self._audits:
            alpha, kind = self._alpha_and_form(form)
            path = self._plan.veto_files[form]
            if not path.exists():
                vetoes = make_veto_set(
                    self._known.evidence(self._reader.features),
                    self._reader,
                    alpha=alpha,
                    form=kind,
                    base_model=self._known.imitator.name,
                )
                write_veto_set(path, vetoes)
            self._audits[form] = self._known.audit(self._reader, alpha=alpha, form=kind)
        return self._audits[form]

    def _alpha_and_form(self, base: Base) -> tuple[float, VetoForm]:
        reader = self._reader
        return {
            Base.AUDIT: (self._plan.alpha, VetoForm.SPIKE),
            Base.HARD: (surest_alpha(reader.features, reader.n_tokens), VetoForm.SPIKE),
            Base.CONFIDENCE: (CONFIDENCE_ERROR, VetoForm.CONFIDENCE),
        }[base]


def _base_row(plan: ComparisonPlan, base: Base, run: RunFolder, audit: AuditRow | None) -> BaseRow:
    world = load_world(run.agent.world)
    numbers = run.bases[0].numbers
    first, whole, count = _silence(world, run.bases[0].n_tokens)
    return BaseRow(
        base=base,
        first_silence_nats=first,
        silent_episode_nats=whole,
        n_silences=count,
        silent_share=numbers.value("silent_share"),
        possible_share=numbers.value("possible_shares", -1),
        outside_mass=numbers.value("outside_mass"),
        help_share=numbers.value("help_share"),
        prices=_prices(plan, world),
        audit=audit,
    )


def _silence(world: World, n_tokens: int) -> tuple[float, float, float]:
    """Medians: the price of a first silence, of a whole episode of it, and its turns."""
    most = n_tokens // world.parser.empty_turn_tokens
    played = play_script(
        world,
        Say(()),
        n_episodes=N_PRICED,
        n_tokens=n_tokens,
        free_turns=1,
        n_turns=most,
        seed=0,
        stream=(_SCRIPT_STREAM,),
    )
    costs = played.costs_nats[~np.isnan(played.costs_nats[:, 0])]
    whole = np.nansum(costs, axis=1)
    count = np.sum(~np.isnan(costs), axis=1)
    return float(np.median(costs[:, 0])), float(np.median(whole)), float(np.median(count))


def _prices(plan: ComparisonPlan, world: World) -> PricesByContext:
    """Prices over contexts of the demonstrator's own."""
    imitator = load_imitator(WorldConfig(task=plan.task))
    dialogues = imitator.demonstrations(
        None,
        n_dialogues=N_PRICED,
        n_tokens=plan.n_dialogue_tokens,
        n_silences=0,
        seed=(plan.seed, _PRICED_STREAM),
    )
    reader = FeatureReader(world.parser, imitator.reader.features)
    return prices_by_context(world.base, reader, dialogues, batch=BATCH)


def _agents_row(base: Base, run: RunFolder, budget_nats: float) -> AgentsRow:
    rows = [row.numbers for row in run.rows if row.budget_nats == budget_nats]

    def over_seeds(name: str, *place: int) -> MeanOverRuns:
        values = [row.value(name, *place) for row in rows]
        return mean_over_runs(values, within=METRICS[name].within)

    return AgentsRow(
        base=base,
        budget_nats=budget_nats,
        silent_share=over_seeds("silent_share"),
        empty_share=over_seeds("empty_share_per_episode"),
        possible_share=over_seeds("possible_shares", -1),
        outside_mass=over_seeds("outside_mass"),
        help_share=over_seeds("help_share"),
        spent_nats=over_seeds("spent_nats_mean"),
        return_mean=over_seeds("return_mean"),
    )
