"""The command audits any two models, goes on where it stopped, and refuses in one line."""

import csv
import json
import re
import shutil
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llm_experiment.audit import main
from llm_experiment.auditing.models import check_fine_tuned, load_models, model_fingerprints
from llm_experiment.auditing.parts import read_parts
from llm_experiment.auditing.prompts import read_prompts
from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.auditing.stages import Auditor
from tests.llm_experiment.auditing.small_models import (
    N_POSITIONS,
    TEMPLATE,
    chat,
    chat_model,
    chat_tokenizer,
    nudged,
    save,
    write_prompts,
)
from theory.errors import ModelError

LINES = (
    chat("Hello there."),
    {"prompt": "Yes. No.", "follow_up": " Hello"},
    chat("Hello.", "Yes.", "How are you today?"),
    chat("No."),
    {"prompt": "I am fine"},
)
FILES = ("audit.json", "audit.csv", "audit.png", "audit.pdf", "audit.html")
SMALL = ("--n-tokens", "12", "--n-times", "2", "--batch-size", "2", "--pattern-tokens", "3")
OWN = """
from llm_experiment.auditing.behaviours import Behaviour

SHOUT = Behaviour(name="shout", says=lambda prompt: prompt.last_said.upper())
SEVERAL = [SHOUT, Behaviour(name="nothing to say", says=lambda prompt: None)]
NONE = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, and a file of prompts."""
    folder = tmp_path_factory.mktemp("audit")
    tokenizer = chat_tokenizer()
    model = chat_model(len(tokenizer))
    save(folder / "base", model, tokenizer)
    save(folder / "policy", nudged(model), tokenizer)
    save(folder / "without template", nudged(model), chat_tokenizer(template=None))
    save(folder / "apart", chat_model(len(tokenizer), seed=5), tokenizer)
    save(folder / "wider", chat_model(len(tokenizer), hidden_size=32), tokenizer)
    tokenizer.add_tokens(["<new>"])
    save(folder / "more tokens", chat_model(len(tokenizer)), tokenizer)
    broken = nudged(model)
    with torch.no_grad():
        broken.model.norm.weight[0] = torch.nan
    save(folder / "broken", broken, chat_tokenizer())
    write_prompts(folder / "prompts.jsonl", *LINES)
    return folder


@pytest.fixture(autouse=True)
def _only_what_is_measured(monkeypatch):
    """Without the figure and without collecting garbage, which take longer than these audits.

    `done` is drawn, being made before this.
    """
    monkeypatch.setattr("llm_experiment.auditing.figure.plot", lambda summary, stem: ())
    monkeypatch.setattr("llm_experiment.base.loading.release_memory", lambda: None)


def audit(folder, out, *options, policy="policy", base="base", prompts="prompts.jsonl"):
    argv = ["--base-model", str(folder / base), "--prompts", str(folder / prompts)]
    argv += ["--out", str(out), *SMALL, *options]
    main([*argv, *(() if policy is None else ("--policy", str(folder / policy)))])


def refused(capsys, *given, **names):
    """The one line of an audit that is refused."""
    with pytest.raises(SystemExit) as exit_:
        audit(*given, **names)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    audit(folder, out, "--phrases", "Yes.", "No.", "--patterns", "[A-Z].*", "--n-samples", "2")
    return out


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    """An audit without further options; tests that go on with it take a copy."""
    out = tmp_path_factory.mktemp("plain") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_experiment.auditing.figure.plot", lambda summary, stem: ())
        patch.setattr("llm_experiment.base.loading.release_memory", lambda: None)
        audit(folder, out)
    return out


def found_in(out):
    return json.loads((out / "audit.json").read_text())["found"]


def rows_of(out):
    with (out / "audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_audit_leaves_what_it_says_it_leaves(done):
    assert all((done / name).stat().st_size > 100 for name in FILES)
    assert {path.name for path in done.glob("*.jsonl")} == {
        f"audit.{name}.jsonl"
        for name in ["kl", "estimators", "likelier", "where", "tokens", "steps", "prices", "bought"]
    }
    with Image.open(done / "audit.png") as image:
        assert image.size[0] > 500
    assert len(list((done / "parts").iterdir())) == 3  # two batches of chats, one of texts
    found = found_in(done)
    assert found["n_prompts"] == len(LINES)
    assert found["divergence"]["n_answers"] == 2 * len(LINES)


def test_every_prompt_has_its_prices_under_both_models(done, folder):
    rows = rows_of(done)
    priced = {(r["line"], r["model"], r["name"]) for r in rows if r["measure"] == "price_nats"}
    for model in ("base", "policy"):
        for name in ("end at once", "Yes.", "No.", "refuse", "code fence only"):
            assert {line for line, m, n in priced if (m, n) == (model, name)} == set("12345")
        # Only one chat has an answer to repeat.
        assert {line for line, m, n in priced if n == "repeat the last answer"} == {"3"}


def test_the_price_of_a_phrase_is_the_models_surprise_at_it(done, folder):
    tokenizer = chat_tokenizer()
    model = chat_model(len(tokenizer))
    text = tokenizer.apply_chat_template(chat("No.", "Yes.")["messages"], tokenize=False)
    start = tokenizer.apply_chat_template(
        chat("No.")["messages"], tokenize=False, add_generation_prompt=True
    )
    tokens, before = tokenizer.encode(text.removesuffix("\n")), tokenizer.encode(start)
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    expected = -sum(float(log_probs[i - 1, tokens[i]]) for i in range(len(before), len(tokens)))
    key = {"line": "4", "model": "base", "name": "Yes.", "number": "1", "measure": "price_nats"}
    (row,) = [r for r in rows_of(done) if key.items() <= r.items()]
    assert float(row["value"]) == pytest.approx(expected, rel=1e-5)


def test_a_blank_answer_is_never_dearer_than_ending_at_once(done):
    nats = {(r["line"], r["name"], r["measure"]): float(r["value"])
            for r in rows_of(done) if r["model"] == "base" and r["number"] == "1"}  # fmt: skip
    for line in "12345":
        at_most = nats[line, "blank answer", "price_at_most_nats"]
        at_least = nats[line, "blank answer", "price_at_least_nats"]
        assert at_least <= at_most * (1 + 1e-6)
        assert at_least <= nats[line, "end at once", "price_nats"] * (1 + 1e-6)


def test_the_same_command_goes_on_where_it_stopped(folder, plain, tmp_path, monkeypatch):
    measured = []
    whole = Auditor.measure

    def measure(self, batch):
        if len(measured) == 2 and stops:
            raise KeyboardInterrupt
        measured.append(batch.number)
        return whole(self, batch)

    monkeypatch.setattr(Auditor, "measure", measure)
    stops = True
    with pytest.raises(SystemExit, match="130"):
        audit(folder, tmp_path)
    stops = False
    audit(folder, tmp_path)
    assert measured == [0, 1, 2]
    for name in ("audit.json", "audit.csv", "audit.html"):
        assert (plain / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_other_budgets_need_no_other_measurements(folder, plain, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    monkeypatch.setattr(Auditor, "measure", None)
    audit(folder, out, "--budgets-nats", "2.5", "--likely", "0.9")
    before, after = found_in(plain), found_in(out)
    assert after["divergence"] == before["divergence"]
    assert after["budgets_nats"] == sorted([2.5, after["divergence"]["mean_nats"]])
    assert after["likely"] == 0.9


def test_a_folder_is_one_audits(folder, plain, capsys):
    said = refused(capsys, folder, plain, "--seed", "1")
    assert "holds another run (there and here: settings.seed 0 and 1)" in said


def test_without_a_policy_prices_are_the_base_models_and_nothing_is_spent(folder, plain, tmp_path):
    audit(folder, tmp_path, policy=None)
    found = found_in(tmp_path)
    assert found["divergence"] is None
    prices, beside = (
        {b["name"]: b["prices_nats"] for b in each["behaviours"]}
        for each in (found, found_in(plain))
    )
    assert prices == beside


def test_a_policy_that_is_the_base_model_spends_nothing(folder, tmp_path):
    audit(folder, tmp_path, policy="base")
    found = found_in(tmp_path)
    assert found["divergence"]["mean_nats"] == 0
    assert all(b["likelier_share"] in (0.0, None) for b in found["behaviours"])


def test_neither_batch_nor_order_changes_a_number(folder, plain, tmp_path):
    audit(folder, tmp_path, "--batch-size", "64")
    two, many = ({tuple(r.values())[:-1]: float(r["value"]) for r in rows_of(out)}
                 for out in (plain, tmp_path))  # fmt: skip
    assert two.keys() == many.keys()
    for key, value in two.items():
        assert many[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


def test_prompts_that_are_equal_are_answered_by_draws_of_their_own(folder, tmp_path):
    write_prompts(folder / "same.jsonl", LINES[1], LINES[1])
    audit(folder, tmp_path, prompts="same.jsonl")
    first, second = read_parts(tmp_path, 1)["answers"].tolist()
    assert first != second


def test_scripts_of_ones_own_are_priced(folder, tmp_path, monkeypatch):
    (tmp_path / "my_scripts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    write_prompts(folder / "one.jsonl", LINES[0])
    own = ("--behaviours", "my_scripts:SEVERAL")
    audit(folder, tmp_path / "out", *own, policy=None, prompts="one.jsonl")
    found = {b["name"]: b["prices_nats"][0]["n"] for b in found_in(tmp_path / "out")["behaviours"]}
    assert (found["shout"], found["nothing to say"]) == (1, 0)


def test_what_is_no_script_is_refused(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_scripts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    for name, said in (("NONE", "a Behaviour of .* are needed, got 3"), ("NOT", "has no NOT")):
        line = refused(capsys, folder, tmp_path / "o", "--behaviours", f"my_scripts:{name}")
        assert re.search(said, line)
    twice = ("--behaviours", "my_scripts:SHOUT", "my_scripts:SHOUT")
    assert "got 'shout' twice" in refused(capsys, folder, tmp_path / "o", *twice)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"policy": "more tokens"}, "have different vocabularies: token '<new>' is None in one"),
        ({"policy": "apart"}, "is not a fine-tuned .*cosine of their embeddings is -?0.0"),
        ({"policy": "wider"}, "is not a fine-tuned .*its hidden_size is 32 and not 16"),
        ({"policy": "broken"}, "/broken: its logits are no numbers"),
        ({"base": "broken", "policy": None}, "logits are no numbers"),
        ({"base": "without template", "policy": None}, "line 1 is a chat and the tokenizer has no"),
        ({"base": "absent"}, "there is no such folder"),
        ({"prompts": "absent.jsonl"}, "No such file"),
    ],
)
def test_models_and_files_that_do_not_do_are_refused_in_one_line(
    folder, tmp_path, capsys, names, said
):
    assert re.search(said, refused(capsys, folder, tmp_path, **names))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no prompt"),
        ('{"prompt": "Yes."}\nYes.\n', "line 2: not JSON"),
        (json.dumps({"prompt": "Yes. " * 200}), "line 1: the prompt has .* tokens and with an"),
    ],
)
def test_prompts_that_do_not_do_are_refused_in_one_line(folder, tmp_path, capsys, text, said):
    (folder / "bad.jsonl").write_text(text)
    line = refused(capsys, folder, tmp_path, prompts="bad.jsonl")
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budgets-nats", "-1"), "budgets_nats must be >= 0, got -1.0"),
        (("--likely", "1"), "likely must lie in (0, 1), got 1.0"),
        (("--n-walks", "1"), "n_walks must be >= 2"),
        (("--phrases", " "), "phrases must be at least 1 text"),
        (("--patterns", "("), "must be regular expressions, got '('"),
    ],
)
def test_bad_options_are_refused_in_one_line(folder, tmp_path, capsys, options, said):
    assert said in refused(capsys, folder, tmp_path, *options)


def test_a_policy_without_a_template_uses_its_base_models(folder):
    settings = AuditSettings(
        base_model=str(folder / "base"),
        policy=str(folder / "without template"),
        prompts=folder / "prompts.jsonl",
    )
    assert load_models(settings).tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize("rows", [7, 10_000])
def test_embeddings_are_compared_whole_however_many_rows_at_a_time(monkeypatch, rows):
    monkeypatch.setattr("llm_experiment.auditing.models._ROWS", rows)
    base, policy, other = (chat_model(50, seed=seed) for seed in (0, 0, 1))
    first, second = (model.get_input_embeddings().weight for model in (base, policy))
    with torch.no_grad():
        second.copy_(0.3 * first + other.get_input_embeddings().weight)
    expected = torch.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    with pytest.raises(ModelError, match=f"embeddings is {expected:.2f}, where"):
        check_fine_tuned(base, policy, names=("base", "policy"))


@pytest.fixture(scope="module")
def adapters(folder):
    """An adapter of the base model and what merging makes of it, and one of a wider model."""
    peft = pytest.importorskip("peft", reason="peft comes with the extra trl")
    for name, base in (("adapter", "base"), ("of another", "wider")):
        model = AutoModelForCausalLM.from_pretrained(folder / base)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(0)
            wrapped = peft.get_peft_model(
                model,
                peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
            )
        wrapped.save_pretrained(folder / name)
        if name == "adapter":
            save(folder / "merged", wrapped.merge_and_unload(), chat_tokenizer())
    return folder


def settings_of(folder, policy):
    prompts = folder / "prompts.jsonl"
    return AuditSettings(
        base_model=str(folder / "base"), policy=str(folder / policy), prompts=prompts
    )


def test_an_adapter_is_audited_as_what_merging_makes_of_it(adapters):
    found, merged = (load_models(settings_of(adapters, name)) for name in ("adapter", "merged"))
    tokens = torch.arange(10)[None]
    logits, expected, base = (
        model(input_ids=tokens).logits for model in (found.policy, merged.policy, found.base)
    )
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (logits - base).abs().max() > 1e-2  # the base model is not touched
    assert not found.policy.training
    assert found.tokenizer.chat_template == TEMPLATE  # the adapter brings no tokenizer


def test_another_adapter_is_another_policy(adapters, tmp_path):
    settings = settings_of(adapters, "adapter")
    before = model_fingerprints(settings)
    path = adapters / "adapter" / "adapter_config.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"lora_alpha": 100}))
    assert model_fingerprints(settings) != before
    path.write_text(text)
    assert model_fingerprints(settings) == before


def test_adapters_that_do_not_do_are_refused_in_one_line(adapters, tmp_path, capsys, monkeypatch):
    said = refused(capsys, adapters, tmp_path / "a", policy="of another")
    assert re.search("into the base model: size mismatch .* with --base-model the model", said)
    shutil.copytree(adapters / "adapter", adapters / "half", dirs_exist_ok=True)
    weights = load_file(adapters / "adapter" / "adapter_model.safetensors")
    del weights[next(iter(weights))]
    save_file(weights, adapters / "half" / "adapter_model.safetensors")
    said = refused(capsys, adapters, tmp_path / "half", policy="half")
    assert re.search("missing adapter keys .* name a whole adapter", said)
    (adapters / "empty").mkdir(exist_ok=True)
    (adapters / "empty" / "adapter_config.json").write_text("{}")
    said = refused(capsys, adapters, tmp_path / "b", policy="empty")
    assert "empty: it has no adapter_model.safetensors; save it anew" in said
    monkeypatch.setattr("llm_experiment.base.loading.find_spec", lambda name: None)
    said = refused(capsys, adapters, tmp_path / "c", policy="adapter")
    assert "an adapter needs peft; install it with: pip install mightnt[trl]" in said


def test_special_tokens_are_shown_by_their_names(folder, tmp_path):
    tokenizer = chat_tokenizer()
    save(tmp_path, chat_model(len(tokenizer) + 2), tokenizer)  # rows without a token
    prompts = read_prompts(write_prompts(tmp_path / "p.jsonl", LINES[1]))
    settings = AuditSettings(base_model=str(tmp_path), prompts=tmp_path / "p.jsonl")
    auditor = Auditor(load_models(settings), prompts, behaviours=(), patterns=(), settings=settings)
    tokens = [*tokenizer.encode("Yes."), tokenizer.eos_token_id, len(tokenizer) + 1]
    assert "".join(auditor.spelt(tokens)) == f"Yes.<|im_end|><{len(tokenizer) + 1}>"


def test_long_prompts_have_room_up_to_the_last_token(folder, tmp_path, capsys):
    tokenizer = chat_tokenizer()
    text, longer = (tokenizer.decode(tokenizer.encode("Q") * (N_POSITIONS - n)) for n in (12, 11))
    write_prompts(folder / "longer.jsonl", {"prompt": longer})
    said = refused(capsys, folder, tmp_path / "o", prompts="longer.jsonl", policy=None)
    assert f"line 1: the prompt has {N_POSITIONS - 11} tokens and with an answer of 12 does" in said
    write_prompts(folder / "long.jsonl", {"prompt": text})
    audit(folder, tmp_path, prompts="long.jsonl", policy=None)
    (ended,) = [b for b in found_in(tmp_path)["behaviours"] if b["name"] == "end at once"]
    assert [s["n"] for s in ended["prices_nats"]] == [1, 0]
