"""What all demos' commands have in common: their start, their files, and their complaints."""

import functools
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from mightnt.command_line import BAD_USAGE
from mightnt.figure_style import figure_style, to_png
from mightnt.results import to_jsonable
from mightnt.table_files import table_path
from tests.toy_world.conftest import SMALL
from theory.errors import InvalidArgumentError
from toy_world.__main__ import demo_names, load_demo
from toy_world.demo import Demo, DemoOptions

each_demo = pytest.mark.parametrize("name", demo_names())

BAD_OPTIONS = (
    ("hybrid", "--runs 1", "--runs must lie in 2..1000, got 1"),
    ("hybrid", "--offline 9", "--offline must lie in 10..100000, got 9"),
    ("hybrid", "--online 39", "--online must lie in 40..100000, got 39"),
    ("hybrid", "--scale 0", "--scale must lie in (0, 1], got 0.0"),
    ("hybrid", "--bits 23", "--bits must lie in 12..22, got 23"),
    ("hybrid", "--steps 15", "--steps must lie in 16..1000, got 15"),
    ("joint_predictor", "--delta-bits 0", "--delta-bits must lie in 1..12, got 0"),
    ("joint_predictor", "--bits 19", "--bits must lie in 20..22 (20 hold"),
    ("pessimism", "--bits 27", "--bits must lie in 12..26, got 27"),
    ("pessimism", "--memory-bits 9", "--memory-bits must lie in 10..20, got 9"),
    ("pessimism", "--steps 9", "--steps must lie in 10..10000, got 9"),
    ("pessimism", "--runs 19", "--runs must lie in 20..100000, got 19"),
    ("pessimism", "--careers 1", "--careers must lie in 2..1000, got 1"),
    ("pessimism", "--budget 0", "--budget must be > 0 and finite, got 0"),
    ("planners", "--horizon 9", "--horizon must lie in 2..7, got 9"),
    ("planners", "--problems 0", "--problems must lie in 1..10000, got 0"),
    ("proposition1", "--bits 27", "--bits must lie in 14..26, got 27"),
    ("proposition1", "--census-bits 15", "--census-bits must lie in 16..22, got 15"),
    ("proposition1", "--demonstrator-bits 1", "--demonstrator-bits must lie in 2..14, got 1"),
    ("proposition1", "--steps 9", "--steps must lie in 10..1000000, got 9"),
    ("proposition2", "--bits 0", "--bits must lie in 1..16"),
    ("proposition2", "--steps 3", "--steps must lie in 10..10^6"),
    ("regularisers", "--bits 17", "--bits must lie in 18..24, got 17"),
    ("regularisers", "--steps 9", "--steps must lie in 10..1000, got 9"),
    ("regularisers", "--horizon 4", "--horizon must lie in 1..3, got 4"),
    ("solomonoff", "--bits 41", "--bits must lie in 20..40, got 41"),
    ("solomonoff", "--bits 40 --more-bits 32", "--bits must lie in 20..32, got 40"),
    ("solomonoff", "--n-max 31", "--n-max must lie in 32..1024, got 31"),
    ("solomonoff", "--steps 1000", "--steps must lie in 1024..1000000000, got 1000"),
    ("solomonoff", "--jobs 0", "--jobs must not be 0"),
    ("solomonoff", "--continuations 0", "--continuations must lie in 1..1000000, got 0"),
    ("theorem1", "--bits -1", "--bits must lie in 2..34, got -1"),
    ("theorem1", "--steps 5", "--steps must lie in 100..1000000, got 5"),
    ("theorem1", "--horizon 9", "--horizon must lie in 1..5, got 9"),
    ("theorem1", "--jobs 0", "--jobs must be >= 1, got 0"),
    ("theorem1", "--cluster slurm:head:1", "'slurm:head:1' is no cluster; name one as ray"),
    ("theorem1", "--world mars", "invalid choice 'mars'"),
    ("theorem1", "--bits 12 --steps 100", "allow at least 17 bits"),
    ("theorem2", "--problems 0", "--problems must lie in 1..100000, got 0"),
    ("vetoes", "--bits 23", "--bits must lie in 12..22, got 23"),
    ("vetoes", "--event-bits 7", "--event-bits must lie in 8..14, got 7"),
    ("vetoes", "--steps 15", "--steps must lie in 16..256, got 15"),
    ("vetoes", "--runs 0", "--runs must lie in 1..200, got 0"),
    ("vetoes", "--blur 1", "--blur must lie in (0, 1), got 1.0"),
    ("waiting_agent", "--bits 17", "--bits must lie in 18..24"),
    ("waiting_agent", "--budget-nats -1", "--budget-nats must be >= 0"),
    ("waiting_agent", "--budget-nats nan", "got nan"),
    ("waiting_agent", "--bell-probability 1", "in (0, 1), got 1.0"),
    ("waiting_agent", "--steps 10", "--steps must lie in 100..10^6"),
)

WRITTEN_OUT = re.compile(r"^(-?\d+\.\d|\d+%|[<=]*\d\S* ?[\[(,/]\s?\d)")
"""Numbers as a person reads them: with an interval, as a percentage or decimal fraction."""

KEYS = {
    "hybrid": {
        "": "stages reach curves doorbell",
        "stages": "stage n_states n_actions horizon value certificate_gap sub_optimality_constant "
        "regret_constant n_uncovered n_handed_over",
        "reach": "stage other_share optimal suboptimal bound",
        "curves": "stage other_share n_online sub_optimality regret sub_optimality_rate "
        "regret_rate",
        "doorbell": "agent pay budget_nats n_episodes true_value bad_probability "
        "novel_bad_probability n_bad regret",
    },
    "joint_predictor": {
        "": "delta_bits n fixed_nats follower_nats limit_n limit_nats halving_nats "
        "bound_nats printed_nats ordinary",
        "ordinary": "k fixed_nats expected_nats bound_nats residual_nats",
    },
    "pessimism": {
        "": "world help_over_time ville compared priced",
        "help_over_time": "alpha mean",
        "ville": "world alpha_over_weight bound exact simulated interval",
        "compared": "world conduct",
        "priced": "k conduct",
    },
    "planners": {
        "": "points shortcut random_shortcuts horizon",
        "points": "constraint budget value bound attained multiplier",
        "shortcut": "budget_nats lost_share overspending",
        "random_shortcuts": "budget_nats lost_share overspending",
    },
    "proposition1": {
        "": "cases novel",
        "cases": "verdict k to from",
        "novel": "world n_steps tau_to_xi_nats constructed_to_xi_nats constructed_to_tau_nats "
        "best_to_xi_nats best_to_tau_nats best_bad xi_bad",
    },
    "proposition2": {
        "": "times bits_by_world clock",
    },
    "regularisers": {
        "": "outcomes",
        "outcomes": "world base constraint eps_nats budget value gap true_value bad_probability "
        "n_asks",
    },
    "solomonoff": {
        "": "prices options",
        "prices": "n bits normalised_bits estimate_bits from_bits to_bits least_bits most_bits "
        "program_bits program bound_bits",
    },
    "theorem1": {
        "": "world demonstrator demonstrator_bits limit_bits constant_bits prices frontiers",
        "prices": "k kind event event_bits event_is_shortest delta_bits demonstrator_bits "
        "within_limit log_rho bound_nats bound_as_printed_nats "
        "bound_over_all_programs_nats bound_as_printed_over_all_programs_nats "
        "fixed_kl_nats adaptive_kl_nats expected_kl_nats kl_to_tau_nats value best_value",
        "frontiers": "label kind within_limit budgets_nats values kl_nats value",
    },
    "theorem2": {
        "": "frequencies contrast bars",
        "frequencies": "shape reading claim violated problems",
        "contrast": "budget tvd kl",
    },
    "vetoes": {
        "": "world n_events weight_bound outcomes fillings help_over_time false_vetoes audits left",
        "outcomes": "world k imitator budget_nats never_probability bound missing_mass",
        "fillings": "filling budget_nats never_probability",
        "help_over_time": "k pessimistic hard blocked n_vetoed",
        "false_vetoes": "alpha n_false most bound bound_over_weight",
        "audits": "blurred k n_vetoed greatest_doubt_nats needed_nats event",
        "left": "blurred event bits visits expected mean_price_nats least_price_nats bound_nats",
    },
    "waiting_agent": {
        "": "terms choices direct_bound_bits",
        "terms": "world demonstrator k minus_log2_xi bits",
        "choices": "budget_nats value kl_nats shares rates",
    },
}
"""What users may read in `data` of each demo's JSON, and in the rows of its lists by name."""

DRAWN = {
    "hybrid": (18, 18, 18, 18, 18, 18, 18, 18, 5, 4),
    "joint_predictor": (5, 5),
    "pessimism": (3, 9, 6, 8),
    "planners": (4, 3, 2),
    "proposition1": (4, 8),
    "proposition2": (9, 4),
    "regularisers": (12, 10, 19, 15),
    "solomonoff": (8, 3),
    "theorem1": (6, 5),
    "theorem2": (6, 6, 4),
    "vetoes": (5, 2, 4, 5),
    "waiting_agent": (3, 3),
}
"""How many curves, areas, sets of points, bars and images each panel of a figure has."""
REVERSED = {("pessimism", 2), ("vetoes", 2)}
"""Panels whose horizontal axis falls: alpha, more pessimistic, or more vetoes, to the right."""

START = """
import contextlib, io, json, sys
from toy_world import __main__ as every
from toy_world.__main__ import demo_names, load_demo

def loaded():
    heavy = ("matplotlib", "numba", "scipy", "sympy", "torch", "toy_world.studies")
    return {name for name in sys.modules if name.startswith(heavy)}

def start(main, *argv):
    before = loaded()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(argv)
        except SystemExit as exit_:
            code = exit_.code
    return code, sorted(loaded() - before)

bad = json.loads(sys.argv[1])
found = {n: [start(load_demo(n).main, "--help"), start(load_demo(n).main, *bad[n].split())]
         for n in demo_names()}
found["all"] = [start(every.main, "--help"), start(every.main, "--only", "nothing")]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def starts():
    """Exit codes and what was imported, of `--help` and a bad option of every command."""
    first_bad = {name: options for name, options, _ in reversed(BAD_OPTIONS)}
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(first_bad)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*demo_names(), "all"])
def test_help_and_bad_options_answer_before_anything_heavy_is_imported(starts, name):
    assert starts[name] == [[0, []], [BAD_USAGE, []]]


@each_demo
def test_every_demo_module_offers_a_demo_that_runs_without_options(name):
    demo = load_demo(name)
    assert isinstance(demo, Demo)
    assert demo.name == name
    assert isinstance(demo.options_type(), DemoOptions)
    assert demo.options_type.__doc__
    assert demo.presentation().name == name
    assert demo.presentation().options_type is demo.options_type


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_options_are_one_line_with_exit_code_2(name, options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        load_demo(name).main([*options.split(), "--out", str(tmp_path)])
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


RANGE = re.compile(r"--(?P<name>[\w-]+) must lie in (?P<least>\d[\d^]*)\.\.(?P<most>\d[\d^]*)")
RANGES = [row for row in BAD_OPTIONS if RANGE.match(row[2])]
BESIDES = {("solomonoff", "n_max"): {"steps": 10**6}}
"""What an option at its largest asks of another one."""


@pytest.mark.parametrize(("name", "options", "message"), RANGES)
def test_a_range_holds_what_it_names_and_nothing_beyond(name, options, message):
    found = RANGE.match(message)
    option = found["name"].replace("-", "_")
    least, most = (power(found[end]) for end in ("least", "most"))
    words = options.split()
    given = {
        key.removeprefix("--").replace("-", "_"): int(value)
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
    others = given | BESIDES.get((name, option), {})
    options_type = load_demo(name).options_type
    for value in (least, most):
        made = options_type(**(others | {option: value}))
        assert getattr(made, option) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidArgumentError, match=f"must lie in .*, got {value}$"):
            options_type(**(others | {option: value}))


def power(text) -> int:
    """The number that `1000` or `10^6` is."""
    base, _, exponent = text.partition("^")
    return int(base) ** int(exponent or 1)


@each_demo
def test_the_command_prints_and_writes_its_files(shown, name):
    found = shown(name)
    files = {path.name: path.stat().st_size for path in found.folder.iterdir()}
    tables = {f"{name}.{table.name}.jsonl" for table in found.result.tables}
    assert set(files) == tables | {f"{name}.{suffix}" for suffix in ("json", "png", "pdf")}
    assert min(files[f"{name}.png"], files[f"{name}.pdf"]) > 10_000
    for statement in found.result.presentation.statements:
        assert str(statement) in " ".join(found.printed.split())
    assert found.printed.count("•") == len(found.result.findings) > 0


@pytest.fixture(scope="module")
def drawn_again(shown):
    """A demo's figure by what its file says, and that figure's PNG."""

    @functools.cache
    def draw(name):
        with figure_style():
            figure = shown(name).result.figure()
            return figure, to_png(figure)

    return draw


@each_demo
def test_a_file_read_back_shows_what_the_run_showed(shown, drawn_again, name):
    found = shown(name)
    document = json.loads((found.folder / f"{name}.json").read_text())
    assert to_jsonable(found.result.document) == document
    _, png = drawn_again(name)
    assert png == (found.folder / f"{name}.png").read_bytes()


@each_demo
def test_the_keys_of_the_data_stay(shown, name):
    data = json.loads((shown(name).folder / f"{name}.json").read_text())["data"]
    for place, keys in KEYS[name].items():
        row = data[place][0] if place else data
        assert set(keys.split()) <= set(row)


@each_demo
def test_every_table_says_how_its_numbers_were_obtained(shown, name):
    for table in shown(name).result.tables:
        assert any(column.evidence for column in table.columns), table.title


@each_demo
def test_every_table_has_a_file_of_numbers_that_are_not_written_out(shown, name):
    found = shown(name)
    for table in found.result.tables:
        text = table_path(found.folder / f"{name}.json", table.name).read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == len(table.rows)
        for row in rows:
            assert row.keys() == rows[0].keys()
            for field, value in row.items():
                assert not (isinstance(value, str) and WRITTEN_OUT.search(value)), (field, value)


@each_demo
def test_every_panel_draws_what_it_has_and_names_what_it_draws(drawn_again, name):
    figure, _ = drawn_again(name)
    assert tuple(len(with_data(axes)) for axes in figure.axes) == DRAWN[name]
    for place, axes in enumerate(figure.axes):
        _, labels = axes.get_legend_handles_labels()
        if len(labels) > 1:
            legends = [axes.get_legend(), *figure.legends]
            assert any(
                set(labels) <= {text.get_text() for text in legend.get_texts()}
                for legend in legends
                if legend is not None
            )
        left, right = axes.get_xlim()
        assert (left > right) == ((name, place) in REVERSED)
        assert np.less(*axes.get_ylim())


def with_data(axes):
    """The artists of a panel that hold data."""
    lines = [line for line in axes.lines if len(line.get_xdata())]
    bars = [patch for container in axes.containers for patch in getattr(container, "patches", [])]
    return [*lines, *axes.collections, *bars, *axes.images]


def test_all_demos_are_shown():
    assert (
        set(DRAWN)
        == set(SMALL)
        == set(KEYS)
        == {name for name, _, _ in BAD_OPTIONS}
        == set(demo_names())
    )


def test_the_joint_imitator_is_the_joint_predictors_demo(tmp_path, monkeypatch, capsys):
    asked = []

    def joint_predictor_costs(**how):
        asked.append(how)
        raise InvalidArgumentError("stop here")

    monkeypatch.setattr(
        "toy_world.presentations.joint_predictor.joint_predictor_costs", joint_predictor_costs
    )
    options = ["--imitator", "joint", "--seed", "7", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        load_demo("theorem1").main(options)
    (how,) = asked
    assert how["new_rng"]().random() == load_demo("theorem1").options_type(seed=7).rng().random()
    assert "stop here" in capsys.readouterr().err
