r"""Learn what the demonstrator never does, as vetoes that an agent's base model is held to.

    python -m llm_experiment.vetoes --demonstrations dialogues.jsonl --out vetoes.json
    python -m llm_experiment.vetoes show vetoes.json
    python -m llm_experiment.vetoes audit

`theory.vetoes` says what a veto is and what follows from it, `llm_experiment.chat.features` what
may be vetoed, and `llm_experiment.chat.veto_set` what the file holds. Without demonstrations the
task's own process makes some up. The base model reads them once. `audit` measures on held-out
dialogues what the vetoes of several numbers of demonstrations and several alpha do
(`llm_experiment.pessimism.audit`). An interrupted command goes on where it stopped, with the same
result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tyro
from rich.console import Console

from llm_experiment.config import TINY, Lines, Precision, WorldConfig, at_least
from llm_experiment.dialogue.task import load_task
from mightnt.command_line import parse_command_line, run_command
from mightnt.results import check_writable
from theory.arguments import check_alpha
from theory.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llm_experiment.chat.veto_set import VetoSet
    from llm_experiment.pessimism.audit import Audit
    from llm_experiment.pessimism.demonstrations import Demonstration
    from llm_experiment.pessimism.studies import Imitator
    from mightnt.tables import Table

PROG: Final = "python -m llm_experiment.vetoes"
_HELD_OUT_STREAM: Final = 1


class Action(Enum):
    """What to do."""

    LEARN = "learn"
    """Learn vetoes from demonstrations, write them and show them."""
    SHOW = "show"
    """Show the vetoes in a file."""
    AUDIT = "audit"
    """Measure what vetoes do on dialogues that they were not learnt from."""


class Form(Enum):
    """What one occurrence of an event does to its veto."""

    SPIKE = "spike"
    """It lifts it."""
    GRADED = "graded"
    """It weakens it."""
    CONFIDENCE = "confidence"
    """Nothing is vetoed; events are made as rare as a confidence interval of their rate allows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Learn from demonstrations what the demonstrator never does; show it, or audit it."""

    action: tyro.conf.Positional[Action] = Action.LEARN
    """`learn`, `show` the vetoes in a file, or `audit` them on held-out dialogues."""
    file: tyro.conf.Positional[Path | None] = None
    """With `show`: the file; --out if left out."""
    out: Path | None = None
    """File for the vetoes, or for the audit's numbers; results/vetoes/vetoes.json and
    results/vetoes/audit.json if left out."""
    demonstrations: Path | None = None
    """JSONL: a dialogue a line, {"turns": [{"speaker": ..., "text": ...}, ...]} or {"transcript":
    ...}; made up by the task's process if left out."""
    alpha: float = 0.05
    """An event that never occurred is vetoed if the posterior weight of "never" reaches this."""
    hard: bool = False
    """Take the largest alpha at which every event that never occurred is vetoed."""
    form: Form = Form.SPIKE
    """What one occurrence does: it lifts the veto (`spike`), or weakens it (`graded`, for dirty
    demonstrations). `confidence` is for comparison: events are made as rare as a confidence
    interval of their rate allows, and none impossible."""
    features: tuple[str, ...] = ()
    """Features of the transcript to veto by; all that the vocabulary can have if left out."""
    base_model: str = TINY
    """The imitator: `tiny`, a local folder, a Hugging Face hub id, or `process`: the demonstrator
    itself."""
    device: str = "cpu"
    """Torch device of the base model, such as `cpu` or `cuda:0`."""
    dtype: Precision = Precision.FLOAT32
    """How the base model's weights are stored."""
    task: str = "classroom"
    """Dialogue task: which `tiny` model, and whose process makes demonstrations up."""
    agent_name: str = "Teacher"
    """The name before the demonstrator's turns, which the agent is to take."""
    partner_name: str = "Student"
    """The name before the turns that it answers."""
    separator: Lines = "\n"
    """Line breaks between turns, such as \\n\\n."""
    n_dialogues: int = 300
    """Demonstrations that the process makes up."""
    n_tokens: int = 384
    """Tokens of each of these."""
    n_silences: int = 0
    """Turns of the demonstrator that lose their words in these: dirty data."""
    seed: int = 0
    """Seed of what the process makes up."""
    batch: int = 64
    """Dialogues that the base model reads at a time."""
    held_out: Path | None = None
    """With `audit`: JSONL of dialogues that nothing is learnt from; made up by the task's process
    if there are no --demonstrations either."""
    n_held_out: int = 64
    """With `audit`: held-out dialogues that the process makes up."""
    numbers: tuple[int, ...] = ()
    """With `audit`: numbers of demonstrations to learn from; 3, 10, 30, ... and all if left out."""
    alphas: tuple[float, ...] = (0.05,)
    """With `audit`: thresholds; that of --hard is measured in any case."""
    most: int = 30
    """Vetoes to print, the most expected ones; the file has all."""

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        for alpha in self.alphas:
            check_alpha(alpha)
        least = {
            "n_dialogues": 1, "n_tokens": 2, "n_silences": 0, "seed": 0, "batch": 1, "most": 0,
            "n_held_out": 1,
        }  # fmt: skip
        for name, bound in least.items():
            at_least(name, getattr(self, name), bound)
        load_task(self.task)
        self.world()
        if self.action is Action.AUDIT and (self.demonstrations is None) != (self.held_out is None):
            raise InvalidArgumentError(
                "demonstrations and held_out must both be files, or both be left out; name "
                "--held-out where there are --demonstrations"
            )
        if self.file is not None and self.action is not Action.SHOW:
            raise InvalidArgumentError(
                f"{self.action.value} takes no file, got {self.file}; name it with --demonstrations"
            )
        if self.n_silences and self.demonstrations is not None:
            raise InvalidArgumentError(
                "n_silences are for demonstrations that the process makes up; leave out "
                "--demonstrations"
            )

    @property
    def path(self) -> Path:
        """The file to write, or to show."""
        name = "audit" if self.action is Action.AUDIT else "vetoes"
        return self.out or Path(f"results/vetoes/{name}.json")

    def world(self) -> WorldConfig:
        """The base model and the speakers."""
        return WorldConfig(
            base_model=self.base_model,
            device=self.device,
            dtype=self.dtype,
            task=self.task,
            agent_name=self.agent_name,
            partner_name=self.partner_name,
            separator=self.separator,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, learn or read, print."""

    def command() -> None:
        options = parse_command_line(Options, argv, prog=PROG)
        work = {Action.LEARN: _learn, Action.SHOW: _show, Action.AUDIT: _audit}[options.action]
        work(options, Console())

    run_command(command)


def _show(options: Options, console: Console) -> None:
    """Print the vetoes in a file."""
    from llm_experiment.chat.veto_set import read_veto_set
    from mightnt.tables import print_table

    path = options.file or options.path
    print_table(to_table(read_veto_set(path), most=options.most), console)


def _learn(options: Options, console: Console) -> None:
    """Learn vetoes, write and print them."""
    from llm_experiment.chat.veto_set import VetoForm, write_veto_set
    from llm_experiment.pessimism.learning import make_veto_set, surest_alpha
    from llm_experiment.pessimism.studies import evidence_of, forget, load_imitator
    from mightnt.table_files import write_tables
    from mightnt.tables import print_table

    check_writable(options.path)
    imitator = load_imitator(options.world(), features=options.features)
    (evidence,) = evidence_of(
        imitator, _demonstrations(options, imitator), batch=options.batch, partial=options.path
    )
    reader = imitator.reader
    hardest = surest_alpha(reader.features, reader.n_tokens)
    veto_set = make_veto_set(
        evidence,
        reader,
        alpha=hardest if options.hard else options.alpha,
        form=VetoForm(options.form.value),
        base_model=options.base_model,
    )
    write_veto_set(options.path, veto_set)
    forget(options.path)
    print_table(to_table(veto_set, most=options.most), console)
    every = to_table(veto_set, most=len(veto_set.vetoes))
    for path in (options.path, *write_tables(options.path, [every])):
        console.print(f"wrote {path}", highlight=False)


def _demonstrations(options: Options, imitator: "Imitator") -> "tuple[Demonstration, ...]":
    return imitator.demonstrations(
        options.demonstrations,
        n_dialogues=options.n_dialogues,
        n_tokens=options.n_tokens,
        n_silences=options.n_silences,
        seed=options.seed,
    )


def _audit(options: Options, console: Console) -> None:
    """Measure vetoes on held-out dialogues, write and print what was found."""
    from llm_experiment.chat.veto_set import VetoForm
    from llm_experiment.pessimism.learning import surest_alpha
    from llm_experiment.pessimism.studies import audit_vetoes, forget, load_imitator
    from mightnt.results import write_json
    from mightnt.table_files import write_tables
    from mightnt.tables import print_table

    check_writable(options.path)
    imitator = load_imitator(options.world(), features=options.features)
    demonstrations = _demonstrations(options, imitator)
    # Another stream than the demonstrations', whatever their seed.
    held_out = imitator.demonstrations(
        options.held_out,
        n_dialogues=options.n_held_out,
        n_tokens=options.n_tokens,
        n_silences=0,
        seed=(options.seed, _HELD_OUT_STREAM),
    )
    reader = imitator.reader
    hardest = surest_alpha(reader.features, reader.n_tokens)
    audit = audit_vetoes(
        imitator,
        demonstrations,
        held_out,
        numbers=options.numbers or default_numbers(len(demonstrations)),
        alphas=sorted({*options.alphas, hardest}, reverse=True),
        form=VetoForm(options.form.value),
        law_known=options.demonstrations is None,
        batch=options.batch,
        partial=options.path,
    )
    write_json(options.path, {"options": options, **vars(audit)})
    forget(options.path)
    table = audit_table(audit)
    print_table(table, console)
    for path in (options.path, *write_tables(options.path, [table])):
        console.print(f"wrote {path}", highlight=False)


def default_numbers(n_dialogues: int) -> tuple[int, ...]:
    """3, 10, 30, 100, ... up to all dialogues.

    Args:
        n_dialogues: how many there are.
    """
    steps = (mantissa * 10**power for power in range(len(str(n_dialogues))) for mantissa in (1, 3))
    return (*(step for step in steps if 1 < step < n_dialogues), n_dialogues)


def audit_table(audit: "Audit") -> "Table":
    """An audit, for a person."""
    from mightnt.tables import Column, Table

    known = audit.law_known
    columns = [
        Column(header="demonstrations", format=".0f"),
        Column(header="alpha", format=".2g"),
        Column(header="vetoes", format=".0f"),
        Column(header="events", format=".0f"),
        Column(header="false", format=".0f"),
        Column(header="help a step", format=".2%"),
        Column(header="unseen steps", format=".2%"),
        Column(header="blocked", format=".0f"),
        Column(header="gain, helped (nats)", format=".2f", key="gain_completed_nats"),
        Column(header="gain, alone (nats)", format=".2f", key="gain_renormalised_nats"),
        Column(header="cheapest never (nats)", format=".1f", key="cheapest_never_nats"),
        Column(header="cheapest else (nats)", format=".1f", key="cheapest_impossible_nats"),
    ]
    rows = tuple(
        (
            row.n_demonstrations,
            row.alpha,
            row.n_vetoes,
            row.n_events,
            row.n_false,
            row.help_per_step,
            row.unseen_share,
            row.n_blocked,
            row.gain_completed_nats,
            row.gain_renormalised_nats,
            row.cheapest_never_nats,
            row.cheapest_impossible_nats,
        )
        for row in audit.rows
    )
    does = "gives a positive probability" if known else "was seen to do"
    return Table(
        name="audit",
        title=f"Vetoes on {audit.n_dialogues} held-out dialogues ({audit.n_steps} steps)",
        columns=tuple(columns),
        rows=rows,
        notes=(
            "First row: the base model as it is. Events: those that the vetoes rule out or make "
            "rarer, at values that were visited; false: those ruled out that the demonstrator "
            f"{does} somewhere in these dialogues. Blocked: its tokens that have no probability "
            "left.",
            "Gain: log-likelihood of a dialogue over the base model's, the demonstrator filling "
            "what is missing (helped), or the rest divided by its mass, blocked tokens left out "
            "(alone).",
            "Cheapest: the median over dialogues of the price of the cheapest token that makes an "
            "event which the demonstrator never does (never), or that it would not write there "
            "(else).",
        ),
    )


def to_table(veto_set: "VetoSet", *, most: int) -> "Table":
    """The most expected vetoes, for a person.

    Args:
        veto_set: all of them.
        most: how many rows.
    """
    from mightnt.tables import Column, Table

    shown = veto_set.vetoes[:most]
    left_out = len(veto_set.vetoes) - len(shown)
    vetoed_whole = [c.feature for c in veto_set.coverage if c.unvisited_factor == 0]
    return Table(
        name="vetoes",
        title=f"What {veto_set.agent} never does, in {veto_set.n_demonstrations} demonstrations",
        columns=(
            Column(header="feature"),
            Column(header="value"),
            Column(header="next"),
            Column(header="visits", format=".0f"),
            Column(header="seen", format=".0f"),
            Column(header="expected", format=".2f"),
            Column(header="bits", format=".1f"),
            Column(header="weight", format=".4f"),
            Column(header="factor", format=".3g"),
        ),
        rows=tuple(
            (
                veto.feature,
                veto.value,
                veto.token,
                veto.visits,
                veto.occurrences,
                veto.expected,
                veto.bits,
                veto.weight,
                veto.factor,
            )
            for veto in shown
        ),
        notes=(
            f"{len(veto_set.vetoes)} vetoes at alpha = {veto_set.alpha:.3g}, "
            f"{veto_set.form.value} form, from {veto_set.n_steps} steps of {veto_set.agent}"
            + (f"; {left_out} are not shown." if left_out else "."),
            "Expected: how often the base model expected the event there. Weight: the posterior of "
            "'never'. Factor: what its probability is multiplied by.",
            "Where no demonstration came, nothing is vetoed."
            if not vetoed_whole
            else f"Where no demonstration came, all is vetoed by: {', '.join(vetoed_whole)}.",
        ),
    )


if __name__ == "__main__":
    main()
