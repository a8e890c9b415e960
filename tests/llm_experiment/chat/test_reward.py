"""The reward: the published formula, blank replies, and models that cannot give it."""

import copy
import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from llm_experiment.base.training import new_reward_model, reply_tokenizer
from llm_experiment.chat.reward import (
    BLANK_REWARD,
    SentimentReward,
    check_reward,
    find_positive_label,
    load_reward,
    sentiment_reward,
)
from llm_experiment.dialogue.process import DialogueProcess
from tests.llm_experiment.fakes.tiny_task import TINY_TASK
from theory.errors import InvalidArgumentError, InvalidDistributionError, ModelError

REPLIES = [" It is bad.", "", " Yes.", " It is so good!", " bad!", " ", " Yes.", " xylophone"]


@pytest.fixture(scope="module")
def tokenizer():
    return reply_tokenizer(DialogueProcess(TINY_TASK))


@pytest.fixture(scope="module")
def model(tokenizer):
    """Untrained, with weights so large and a bias such that its opinions differ."""
    model = new_reward_model(tokenizer, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        logits = model(**tokenizer(REPLIES, padding=True, return_tensors="pt")).logits
        model.classifier.bias.sub_(logits.mean(dim=0))
    return model


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    model.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


@given(st.floats(0, 1))
def test_the_winning_labels_score_with_its_sign_is_mapped_to_the_unit_interval(positive):
    label, score = max([("NEGATIVE", 1 - positive), ("POSITIVE", positive)], key=lambda x: x[1])
    r = score if label == "POSITIVE" else -score
    assert sentiment_reward(np.array([positive]))[0] == pytest.approx((r + 1) / 2, rel=1e-15)


def test_the_reward_jumps_by_a_half_at_indifference():
    below, at, above = sentiment_reward(np.array([0.5 - 1e-12, 0.5, 0.5 + 1e-12]))
    assert below == pytest.approx(0.25, abs=1e-11)
    assert at == 0.25
    assert above == pytest.approx(0.75, abs=1e-11)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_earns_nothing(wrong):
    with pytest.raises(InvalidDistributionError, match=r"must lie in \[0, 1\], got"):
        sentiment_reward(np.array([0.3, wrong]))


def test_rewards_are_those_of_the_librarys_own_sentiment_pipeline(model, tokenizer):
    rewards = SentimentReward(model, tokenizer, blank_reward=None)(REPLIES)
    judge = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    signs = {"POSITIVE": 1, "NEGATIVE": -1}
    verdicts = [judge(reply)[0] for reply in REPLIES]
    expected = [(signs[v["label"]] * v["score"] + 1) / 2 for v in verdicts]
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert len({v["label"] for v in verdicts}) == 2  # the formula's both branches are seen


def test_a_blank_reply_is_neither_good_nor_bad_unless_the_model_is_asked(model, tokenizer):
    blank = [not reply.strip() for reply in REPLIES]
    assert (SentimentReward(model, tokenizer)(REPLIES)[blank] == BLANK_REWARD).all()
    chosen = SentimentReward(model, tokenizer, blank_reward=0.25)(REPLIES)
    asked = SentimentReward(model, tokenizer, blank_reward=None)(REPLIES)
    assert (chosen[blank] == 0.25).all()
    assert (asked[blank] != 0.5).all()
    spoken = ~np.array(blank)  # in another batch, which rounds otherwise
    np.testing.assert_allclose(chosen[spoken], asked[spoken], atol=1e-6)


def test_no_replies_have_no_rewards_and_only_blank_ones_need_no_model(model, tokenizer):
    reward = SentimentReward(model, tokenizer)
    assert reward([]).shape == (0,)
    np.testing.assert_array_equal(reward(["", "\n"]), [0.5, 0.5])


def test_a_replys_reward_depends_neither_on_its_company_nor_on_the_batch(model, tokenizer):
    alone = [SentimentReward(model, tokenizer)([reply])[0] for reply in REPLIES]
    for batch_size in (1, 2, 100):
        together = SentimentReward(model, tokenizer, batch_size=batch_size)(REPLIES)
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_reply_too_long_to_read_is_judged_by_its_beginning(tokenizer):
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=8,
        n_layers=1,
        n_heads=1,
        hidden_dim=8,
        max_position_embeddings=6,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    reward = SentimentReward(DistilBertForSequenceClassification(config), tokenizer)
    long, longer = reward([" Yes. Yes.", " Yes. Yes. It is bad."])
    assert long == pytest.approx(longer, abs=1e-6)


def test_a_saved_model_gives_the_same_rewards(folder, model, tokenizer):
    loaded = load_reward(str(folder))
    np.testing.assert_array_equal(loaded(REPLIES), SentimentReward(model, tokenizer)(REPLIES))


def test_labels_may_come_in_any_order_and_case(model, tokenizer):
    rewards = SentimentReward(model, tokenizer)(REPLIES)
    turned = new_reward_model(tokenizer, seed=3)
    turned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in turned.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    turned.config.id2label = {0: "positive", 1: "Negative"}
    np.testing.assert_allclose(SentimentReward(turned, tokenizer)(REPLIES), rewards, atol=1e-6)


def test_a_model_with_other_labels_is_refused(tokenizer):
    model = new_reward_model(tokenizer, seed=0)
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(ModelError, match="must be NEGATIVE and POSITIVE, got LABEL_0, LABEL_1"):
        SentimentReward(model, tokenizer)


def test_a_tokenizer_that_cannot_pad_is_refused(model):
    tokenizer = reply_tokenizer(DialogueProcess(TINY_TASK))
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="must have a padding token"):
        SentimentReward(model, tokenizer)


LABELS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}


def decoder_reward(tokenizer, *, pad_token_id=None, seed=0):
    """A classifier that reads the last token which is no padding."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
        **LABELS,
    )
    torch.manual_seed(seed)
    return GPT2ForSequenceClassification(config)


@pytest.mark.parametrize("pad_token_id", [None, 5])
@pytest.mark.parametrize("side", ["right", "left"])
def test_replies_are_padded_as_the_tokenizer_says(tokenizer, tmp_path, pad_token_id, side):
    """Whatever the model's configuration says, and on the side on which scores stay the same."""
    model = decoder_reward(tokenizer, pad_token_id=pad_token_id)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    padded = load_reward(str(tmp_path))._tokenizer
    padded.padding_side = side
    reward = SentimentReward(decoder_reward(tokenizer, pad_token_id=pad_token_id), padded)
    texts = [reply for reply in REPLIES if reply.strip()]
    plain = decoder_reward(tokenizer, pad_token_id=tokenizer.pad_token_id).eval()
    with torch.no_grad():
        alone = [
            float(plain(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)[1])
            for text in texts
        ]
    np.testing.assert_allclose(reward.positive(texts), alone, atol=1e-5)
    check_reward(str(tmp_path))


def test_a_padding_token_that_the_model_does_not_have_is_refused_at_once(tokenizer):
    model = decoder_reward(tokenizer)
    larger = reply_tokenizer(DialogueProcess(TINY_TASK))
    larger.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ModelError, match="must score replies of different lengths together"):
        SentimentReward(model, larger)


def test_positions_that_begin_after_the_padding_token_are_counted(tokenizer):
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=10,
        pad_token_id=tokenizer.pad_token_id,
        **LABELS,
    )
    reward = SentimentReward(RobertaForSequenceClassification(config), tokenizer)
    assert 0 <= float(reward([" Yes." * 50])[0]) <= 1


def test_short_labels_are_understood(model, tokenizer):
    short = new_reward_model(tokenizer, seed=3)
    short.load_state_dict(model.state_dict())
    short.config.id2label = {0: "neg", 1: "pos"}
    expected = SentimentReward(model, tokenizer)(REPLIES)
    np.testing.assert_array_equal(SentimentReward(short, tokenizer)(REPLIES), expected)


def test_settings_out_of_range_are_refused(model, tokenizer):
    with pytest.raises(InvalidArgumentError, match=r"blank_reward must lie in \[0, 1\], got 2"):
        SentimentReward(model, tokenizer, blank_reward=2.0)
    with pytest.raises(InvalidArgumentError, match="batch_size must be >= 1, got 0"):
        SentimentReward(model, tokenizer, batch_size=0)


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"cannot load the reward model .*no such folder") as error:
        load_reward(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


def test_a_model_without_a_trained_classifier_is_refused(tmp_path, model, tokenizer):
    DistilBertModel(model.config).save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"lack .* of its weights, such as classifier\.bias"):
        load_reward(str(tmp_path / "headless"))


def test_a_half_downloaded_model_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load the reward model"):
        load_reward(str(folder))


def test_pickled_weights_are_not_loaded(folder, model):
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"are pickles .* save_pretrained, which makes"):
        load_reward(str(folder))


def test_a_device_that_is_not_there_is_named(folder):
    with pytest.raises(ModelError, match="cuda:99 cannot be used on this machine"):
        load_reward(str(folder), device="cuda:99")


def labelled(model, labels, **options):
    """The model's configuration under other labels."""
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    for name, value in options.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("labels", [("neg", "pos"), ("Negative", "Positive"), ("NEG", "POSITIVE")])
def test_labels_of_any_case_and_length_are_known(model, labels):
    assert find_positive_label(labelled(model, labels)) == find_positive_label(model.config)
    assert find_positive_label(labelled(model, labels[::-1])).index == 0


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("negative", "neutral", "positive")])
def test_other_labels_need_to_be_told_which_is_the_positive_one(model, labels):
    config = labelled(model, labels)
    with pytest.raises(ModelError, match="say with --positive-label which of them"):
        find_positive_label(config)
    for index, name in enumerate(labels):
        assert find_positive_label(config, name.swapcase()).index == index
    with pytest.raises(ModelError, match=f"one of the reward model's labels, {labels[0]}.*'good'"):
        find_positive_label(config, "good")


def test_the_named_label_earns_what_positive_would(model, tokenizer):
    expected = SentimentReward(model, tokenizer)(REPLIES)
    renamed = copy.deepcopy(model)
    renamed.config = labelled(model, ("LABEL_0", "LABEL_1"))
    found = SentimentReward(renamed, tokenizer, positive_label="label_1")(REPLIES)
    np.testing.assert_array_equal(found, expected)


def test_of_three_classes_neutral_is_not_positive(model):
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]], dtype=torch.float64)
    config = labelled(model, ("negative", "neutral", "positive"))
    found = find_positive_label(config, "positive").probability(logits)
    np.testing.assert_allclose(found, scipy.special.softmax(logits.numpy(), axis=1)[:, 2])


def test_a_single_logit_and_labels_that_may_hold_together_are_logistic(model):
    logits = torch.tensor([[-3.0], [0.0], [2.5]], dtype=torch.float64)
    one = find_positive_label(labelled(model, ("LABEL_0",)), "LABEL_0")
    np.testing.assert_allclose(one.probability(logits), scipy.special.expit(logits[:, 0].numpy()))
    together = labelled(model, ("joy", "anger"), problem_type="multi_label_classification")
    pair = torch.cat([logits, -logits], dim=1)
    found = find_positive_label(together, "joy").probability(pair)
    np.testing.assert_allclose(found, scipy.special.expit(logits[:, 0].numpy()))


def test_a_single_logit_is_a_named_label_or_else_a_scalar_reward(tmp_path, tokenizer):
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=8, hidden_dim=8, n_layers=1, n_heads=2, num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = DistilBertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    check_reward(str(tmp_path), positive_label="LABEL_0")
    reward = load_reward(str(tmp_path), blank_reward=None, positive_label="LABEL_0")
    check_reward(str(tmp_path))
    scalar_reward = load_reward(str(tmp_path), blank_reward=None)
    model.eval()
    for text, earned, scalar in zip(REPLIES, reward(REPLIES), scalar_reward(REPLIES), strict=True):
        with torch.no_grad():
            logit = model(**tokenizer(text, return_tensors="pt")).logits.item()
        p = 1 / (1 + math.exp(-logit))
        assert earned == pytest.approx(((p if p > 0.5 else p - 1) + 1) / 2, abs=1e-5)
        assert scalar == pytest.approx(p, abs=1e-5)
