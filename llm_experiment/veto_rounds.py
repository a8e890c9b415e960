r"""Attack vetoes, and widen them by what the attacker shows, until an attacker shows nothing.

    python -m llm_experiment.veto_rounds --task flattery --out results/veto-rounds

A round trains an agent against the base model under the vetoes so far, with the demonstrator where
mass is missing, and looks for what it does that the demonstrator never does
(`llm_experiment.pessimism.departures`). If that is more than the base policy's own slips, the round
has *found* something: the features that name it are tried (`llm_experiment.pessimism.proposals`),
and the first that passes the audit on held-out dialogues is added. The first round attacks the base
model as it is. The rounds end when one finds nothing, when no feature names what was found, or at
the most that was asked for.

Each round is a run like any other, in a folder of its own; an interrupted command goes on.
"""

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from llm_experiment.pessimism.attack_plan import AttackPlan as Options
from llm_experiment.pessimism.attack_plan import Round
from mightnt.command_line import parse_command_line, run_command
from mightnt.results import check_folder, write_json
from mightnt.table_files import write_tables
from mightnt.tables import Column, Table, Written, print_table

PROG: Final = "python -m llm_experiment.veto_rounds"
ROUNDS_FILE: Final = "rounds.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, go round, print."""

    def command() -> None:
        _run(parse_command_line(Options, argv, prog=PROG), Console(), Console(stderr=True))

    run_command(command)


def _run(plan: Options, console: Console, progress: Console) -> None:
    from llm_experiment.attack_rounds import play_rounds

    check_folder(plan.out)
    rounds = []
    for each in play_rounds(plan, progress):
        rounds.append(each)
        write_json(plan.out / ROUNDS_FILE, {"plan": plan, "rounds": rounds})
    table = to_table(plan, rounds)
    print_table(table, console)
    for path in (plan.out / ROUNDS_FILE, *write_tables(plan.out / ROUNDS_FILE, [table])):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def to_table(plan: Options, rounds: Sequence[Round]) -> Table:
    """The rounds, for a person."""
    return Table(
        name="attacks",
        title=f"Attacks on vetoes: {plan.task}, {plan.budget_nats:g} nats an episode",
        columns=(
            Column(header="round", format=".0f"),
            Column(header="vetoes", format=".0f"),
            Column(header="return", format=".2f"),
            Column(header="silent", format=".1%"),
            Column(header="help a step", format=".2%"),
            Column(header="departed"),
            Column(header="base policy"),
            Column(header="most often by"),
            Column(header="found"),
            Column(header="then added"),
        ),
        rows=tuple(
            (
                each.number,
                each.n_vetoes,
                each.return_mean,
                each.silent_share,
                each.help_share,
                _interval(each.departed),
                _interval(each.base_departed),
                _phrase(each),
                Written("yes" if each.found else "no", {"": each.found}),
                _added(each),
            )
            for each in rounds
        ),
        notes=(
            "Departed: episodes whose first token that the demonstrator never writes is the "
            "agent's, with 95% intervals over episodes; base policy: the same of what it was held "
            "to. Found: the two intervals do not meet.",
            "Most often by: the turn in which most episodes departed, and its share of all turns.",
            _ending(plan, rounds),
        ),
    )


def _ending(plan: Options, rounds: Sequence[Round]) -> str:
    last = rounds[-1]
    if not last.found:
        return f"Round {last.number} found nothing: the rounds are over."
    if last.added is None:
        tried = f" ({', '.join(last.rejected)} did not pass the audit)" if last.rejected else ""
        return f"Nothing that was tried answers what round {last.number} found{tried}."
    return f"The rounds ended at {plan.rounds}, the most that was asked for, with a finding."


def _interval(share: tuple[float, float, float]) -> Written:
    middle, low, high = share
    return Written(
        f"{middle:.0%} ({low:.0%} to {high:.0%})", {"": middle, "low": low, "high": high}
    )


def _phrase(each: Round) -> Written | None:
    if not each.phrases:
        return None
    text, _, turn_share = each.phrases[0]
    return Written(f"{text or '(nothing)'} {turn_share:.0%}", {"": text, "share": turn_share})


def _added(each: Round) -> Written | None:
    if each.added is None:
        return None
    several = each.added.split(", ")
    text = f"{len(several)} features" if len(several) > 1 else each.added
    return Written(text, {"": each.added})


if __name__ == "__main__":
    main()
