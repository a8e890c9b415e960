"""A language model of transformers as base policy.

Its features are its last hidden states. All episodes are in one batch, and the model reads each
token once: keys and values of the tokens before it are kept. On one GPU a CUDA graph replays the
positions (`llm_experiment.base.cuda_graph`); those of a small Mixtral on a processor are machine
code (`llm_experiment.base.mixtral_steps`).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from llm_experiment.base.cuda_graph import ReplayedFunction
from llm_experiment.base.protocol import BaseStep, check_start
from theory.errors import InvalidArgumentError, ModelError

if TYPE_CHECKING:
    from llm_experiment.base.mixtral_steps import MixtralSession

N_FEATURE_LAYERS: Final = 3
"""Features are the activations of this many last hidden layers."""
REPLAY_TOLERANCE_NATS: Final = 0.05
"""How far a replayed log-probability may be from the plain one: attention over masked room may use
another kernel, which in half precision changes logits in the third digit; a wrong graph is off by
far more."""
N_PROBE_TOKENS: Final = 8
"""Of the text that a model is tried with when it is loaded."""
ROUNDINGS: Final = 32
"""How many roundings of its largest logit a model's logits may differ by where they should not."""


def check_attention(config: PreTrainedConfig) -> None:
    """Raise unless all layers of a model are attention, full or with a sliding window.

    The state of others, recurrent ones say, cannot be shared by episodes that share a prompt.

    Raises:
        ModelError: it has others.
    """
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        raise ModelError(
            f"it is a model of type {config.model_type}, which has layers other than full or "
            "sliding-window attention; choose a model that has only those"
        )


def check_positions(text_config: PreTrainedConfig, n_positions: int) -> None:
    """Raise unless a model has position embeddings for episodes of `n_positions` tokens.

    Args:
        text_config: of its decoder.
        n_positions: tokens of an episode, the prompt included.

    Raises:
        InvalidArgumentError: it has fewer.
    """
    most: int | None = getattr(text_config, "max_position_embeddings", None)
    if most is not None and n_positions > most:
        raise InvalidArgumentError(
            f"episodes of {n_positions} tokens do not fit the language model, which reads at most "
            f"{most}; shorten the episode"
        )


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """The frozen last layer of a language model, applied to the end of the features, in float32.

    A matrix product in a coarser precision rounds each logit to three digits or so, and otherwise
    for another number of rows: acting and learning would then disagree. In float32 what they
    disagree about is the rounding of its sums. (The last hidden state is float32 without loss.)

    Attributes:
        weight: float32, shape (n_tokens, width); the hidden state is the last `width` features.
        bias: float32, shape (n_tokens,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, features: Tensor) -> Tensor:
        """See `Head`."""
        hidden = features[:, features.shape[-1] - self.weight.shape[-1] :]
        return functional.linear(hidden, self.weight, self.bias).log_softmax(dim=-1)

    def to(self, device: torch.device) -> "OutputHead":
        """See `Head`."""
        bias = None if self.bias is None else self.bias.to(device)
        return OutputHead(weight=self.weight.to(device), bias=bias)


class HuggingFaceBase:
    """Any causal language model of transformers with attention, frozen, at temperature 1.

    The features are the last token's activations of the last three of the model's hidden states
    (as transformers counts them: the embedding first, the last one after the final norm).

    A vocabulary larger than the features is not carried in observations: there the head is applied
    again, if the model's logits are what its last layer makes of its last hidden state.

    Args:
        model: is put into evaluation mode; stays on its device.

    Raises:
        ModelError: a model with layers other than attention, whose state cannot be shared, or one
            that reads in both directions.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        check_attention(model.config)
        model.train(mode=False)
        model.requires_grad_(requires_grad=False)
        self._model = model
        self._device = next(model.parameters()).device
        text_config = model.config.get_text_config(decoder=True)
        self._text_config = text_config
        self._n_tokens: int = text_config.vocab_size
        n_layers = min(N_FEATURE_LAYERS, text_config.num_hidden_layers + 1)
        self._n_features: int = n_layers * text_config.hidden_size
        devices = {parameter.device for parameter in model.parameters()}
        self._on_one_gpu = devices == {self._device} and self._device.type == "cuda"
        self._head: OutputHead | None = None
        check_causal(model, n_tokens=self._n_tokens, device=self._device)
        if self._n_tokens > self._n_features:
            self._head = _find_head(model, n_tokens=self._n_tokens, device=self._device)

    @property
    def model(self) -> PreTrainedModel:
        """The model itself, frozen, in evaluation mode."""
        return self._model

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, rows without a token included."""
        return self._n_tokens

    @property
    def n_features(self) -> int:
        """Three times the model's hidden size."""
        return self._n_features

    @property
    def device(self) -> torch.device:
        """Where the model's first weights lie."""
        return self._device

    @property
    def head(self) -> OutputHead | None:
        """See `BaseModel.head`."""
        return self._head

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["HuggingFaceSession | ReplayedSession | MixtralSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`.

        Raises:
            InvalidArgumentError, InvalidShapeError: see `check_start` and `check_positions`.
        """
        check_start(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=self.n_tokens
        )
        check_positions(self._text_config, n_positions)
        session = HuggingFaceSession(self._model, head=self._head, n_positions=n_positions)
        step = session.read(prompt_tokens[None])
        compiled = self._compiled(
            prompt_tokens,
            session,
            step,
            n_episodes=n_episodes,
            n_positions=n_positions,
        )
        if compiled is not None:
            return compiled, compiled.step
        step = session.share(step, n_episodes)
        if self._on_one_gpu and session.has_fixed_room:
            return ReplayedSession(session, n_read=len(prompt_tokens)), step
        return session, step

    def _compiled(
        self,
        prompt_tokens: Tensor,
        session: "HuggingFaceSession",
        step: BaseStep,
        *,
        n_episodes: int,
        n_positions: int,
    ) -> "MixtralSession | None":
        """Episodes in machine code; None of a model that is not read so, or after a warning.

        Args:
            prompt_tokens: what `session` has read, in one episode.
            session: the model's own.
            step: what it predicts, which machine code must predict, too.
            n_episodes: how many.
            n_positions: tokens that an episode will have at most.
        """
        if self._text_config.model_type != "mixtral":
            return None
        # Other models need neither the compiler nor this one's modules, both slow to import.
        from llm_experiment.base import mixtral_steps  # noqa: PLC0415

        if not mixtral_steps.is_supported(self._model):
            return None
        compiled = mixtral_steps.MixtralSession(
            self._model,
            prompt_tokens,
            session.keys_and_values,
            n_episodes=n_episodes,
            n_positions=n_positions,
            head=self._head,
        )
        if mixtral_steps.agree(compiled.step, step):
            return compiled
        warnings.warn(
            "the language model predicts otherwise than its kind does, and is read without "
            "machine code, which is slower; was one of its parts changed?",
            stacklevel=3,
        )
        return None


class HuggingFaceSession:
    """Episodes under one language model, with its cache of keys and values.

    Args:
        model: in evaluation mode.
        head: what gives log-probabilities from features, if not the model itself.
        n_positions: tokens that an episode will have at most.
    """

    def __init__(
        self, model: PreTrainedModel, *, head: OutputHead | None, n_positions: int
    ) -> None:
        self._model = model
        self._head = head
        self._cache = DynamicCache(config=model.config)
        # Layers of full attention get room at once; others (sliding windows) know better, unless
        # episodes end before their windows do.
        self._cache.layers = [
            _ReservedLayer(n_positions) if _sees_all(layer, n_positions) else layer
            for layer in self._cache.layers
        ]

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        del agent_wrote  # a language model learns from nobody
        return self.read(tokens[:, None])

    @torch.no_grad()
    def read(self, tokens: Tensor) -> BaseStep:
        """The prediction after more tokens of every episode, shape (n, t)."""
        return self._predict(tokens, self._cache)

    def share(self, step: BaseStep, n_episodes: int) -> BaseStep:
        """Turn the one episode read so far into `n_episodes` equal ones."""
        self._cache.batch_repeat_interleave(n_episodes)
        return BaseStep(
            log_probs=step.log_probs.repeat(n_episodes, 1),
            features=step.features.repeat(n_episodes, 1),
            missing_mass=step.missing_mass.repeat(n_episodes),
        )

    @property
    def keys_and_values(self) -> list[tuple[Tensor, Tensor]]:
        """What each layer has read, shape (n, heads, t, width) each."""
        layers: list[Any] = self._cache.layers
        return [(layer.keys, layer.values) for layer in layers]

    @property
    def has_fixed_room(self) -> bool:
        """Whether every layer has room for whole episodes, once the prompt is shared."""
        return all(isinstance(layer, _ReservedLayer) for layer in self._cache.layers)

    def fixed_forward(self, position: Tensor) -> Callable[[Tensor], BaseStep]:
        """What `append` does, in shapes and at addresses that are the same at every position.

        It writes keys and values where `append` would, but the lengths of this session's cache
        stay as they are.

        Args:
            position: how many tokens have been read, int64, shape (1,), on the model's device;
                every call adds 1 to it.
        """
        layers = cast("list[_ReservedLayer]", self._cache.layers)
        cache = DynamicCache(config=self._model.config)
        cache.layers = [_FixedLayer(*layer.room, position=position) for layer in layers]
        n_positions = layers[0].room[0].shape[-2]
        places = torch.arange(n_positions, device=position.device)

        @torch.no_grad()
        def forward(tokens: Tensor) -> BaseStep:
            hidden = torch.finfo(self._model.dtype).min
            mask = torch.zeros_like(places, dtype=self._model.dtype)
            mask = mask.masked_fill(places > position, hidden).expand(len(tokens), 1, 1, -1)
            step = self._predict(
                tokens[:, None], cache, attention_mask=mask, position_ids=position[None]
            )
            position.add_(1)
            return step

        return forward

    def _predict(self, tokens: Tensor, cache: DynamicCache, **more: Tensor) -> BaseStep:
        # A head makes its predictions of the features alone: the model's own logits would be made
        # for nothing, an eighth of the time at 49,152 tokens.
        model = self._model if self._head is None else self._model.base_model
        output = model(
            input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
            **more,
        )
        missing_mass = torch.zeros(len(tokens), device=tokens.device)
        # The layers of a large model may lie on several devices.
        features = torch.cat(
            [layer[:, -1].to(missing_mass) for layer in output.hidden_states[-N_FEATURE_LAYERS:]],
            dim=-1,
        )
        if self._head is None:
            log_probs = output.logits[:, -1].to(missing_mass).log_softmax(dim=-1)
        else:
            log_probs = self._head(features)
        return BaseStep(log_probs=log_probs, features=features, missing_mass=missing_mass)


class ReplayedSession:
    """A session whose positions a CUDA graph replays, after the first, which `plain` does too.

    Where recording fails, or the first replay predicts something else than `plain` did, `plain`
    goes on alone, after a warning.

    Args:
        plain: episodes that share a prompt so far, with fixed room, on one CUDA device.
        n_read: tokens that they have read.
    """

    def __init__(self, plain: HuggingFaceSession, *, n_read: int) -> None:
        self._plain = plain
        self._n_read = n_read
        self._append: Callable[[Tensor], BaseStep] = self._record

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        del agent_wrote
        return self._append(tokens)

    def _record(self, tokens: Tensor) -> BaseStep:
        expected = self._plain.append(tokens)
        self._append = self._plain.append
        position = torch.full((1,), self._n_read, dtype=torch.int64, device=tokens.device)
        forward = self._plain.fixed_forward(position)

        def predict(tokens: Tensor) -> tuple[Tensor, ...]:
            step = forward(tokens)
            return step.log_probs, step.features, step.missing_mass

        try:
            replayed = ReplayedFunction(predict, tokens, state=[position])
            worst = float((replayed(tokens)[0] - expected.log_probs).abs().max())
        except RuntimeError as error:
            warnings.warn(f"positions are not replayed: {error}", stacklevel=2)
            return expected
        if not worst < REPLAY_TOLERANCE_NATS:
            warnings.warn(
                f"positions are not replayed: log-probabilities were off by {worst:.2g} nats",
                stacklevel=2,
            )
            return expected

        def replay(tokens: Tensor) -> BaseStep:
            log_probs, features, missing_mass = replayed(tokens)
            return BaseStep(log_probs=log_probs, features=features, missing_mass=missing_mass)

        self._append = replay
        return expected


def _sees_all(layer: Any, n_positions: int) -> bool:
    """Whether a layer of transformers' cache lets a token attend to a whole episode."""
    return type(layer) is DynamicLayer or layer.sliding_window >= n_positions


def _probe_tokens(n_tokens: int, device: torch.device) -> Tensor:
    """A few tokens to try a model with, the same every time; int64, shape (1, t)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(n_tokens, (1, N_PROBE_TOKENS), generator=generator).to(device)


@torch.no_grad()
def check_causal(model: PreTrainedModel, *, n_tokens: int, device: torch.device) -> None:
    """Raise if what a model says of a token depends on tokens after it.

    Args:
        model: in evaluation mode.
        n_tokens: size of its vocabulary.
        device: where it expects tokens.

    Raises:
        ModelError: it does, as a model does that reads in both directions.
    """
    tokens = _probe_tokens(n_tokens, device)
    others = tokens.clone()
    others[0, -1] = (others[0, -1] + 1) % n_tokens
    before, after = (model(input_ids=ids).logits[:, :-1].float() for ids in (tokens, others))
    rounding = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    change = float((after - before).abs().max())
    if change > ROUNDINGS * rounding * float(before.abs().max()):
        raise ModelError(
            f"its predictions change by up to {change:.2g} when a later token does, so that it "
            "reads in both directions; choose a causal language model"
        )


@torch.no_grad()
def _find_head(model: PreTrainedModel, *, n_tokens: int, device: torch.device) -> OutputHead | None:
    """The model's last layer on `device`, if that alone makes logits of the last hidden state.

    Some models scale or bound their logits afterwards, or project the hidden state before: what
    goes into the layer and comes out of it must be the very numbers that the model returns. So it
    must be for hidden states of any size, those of a few tokens and random ones in their place,
    since a bound may leave small logits as they are.
    """
    layer: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped
    if not isinstance(layer, nn.Linear) or len(layer.weight) != n_tokens or layer.weight.is_meta:
        return None
    bias = None if layer.bias is None else layer.bias.detach().float()
    head = OutputHead(weight=layer.weight.detach().float(), bias=bias)
    seen: list[Tensor] = []
    random: list[Tensor] = []

    def replace(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noise = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(0))
        scales = torch.logspace(-1, 2, given[0].shape[-2])[:, None]
        random.append((noise * scales).to(given[0]))
        return (random[0], *given[1:])

    tokens = _probe_tokens(n_tokens, device)
    record = layer.register_forward_hook(lambda _, given, made: seen.extend((given[0], made)))
    output = model(input_ids=tokens, output_hidden_states=True)
    replacement = layer.register_forward_pre_hook(replace)
    bounded = model(input_ids=tokens)
    replacement.remove()
    record.remove()
    if len(seen) != 4:
        return None  # the layer is used otherwise than once a forward
    hidden, logits, noise, large = seen
    pairs = (
        (hidden, output.hidden_states[-1]),
        (logits, output.logits),
        (noise, random[0]),
        (large, bounded.logits),
    )
    if not all(_are_equal(a, b) for a, b in pairs):
        return None
    rounding = max(torch.finfo(logits.dtype).eps, torch.finfo(torch.float32).eps)
    # A layer may be more than its weight: one that is quantised or adapted, say.
    for given, made in ((hidden, logits), (noise, large)):
        again = functional.linear(given.float(), head.weight, head.bias)
        if not float((again - made.float()).abs().max()) <= (
            ROUNDINGS * rounding * float(again.abs().max())
        ):
            return None
    return head.to(device)


def _are_equal(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.to(second.device).float(), second.float())


class _ReservedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers has no types
    """A layer of the cache that has room for whole episodes once the prompt is shared.

    Appending a token then copies that token, not the transcript.
    """

    def __init__(self, n_positions: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._n_positions = n_positions
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values with those of more tokens, both of shape (n, heads, t, width)."""
        if self._room is None:
            return super().update(key_states, value_states, *args, **kwargs)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Make `repeats` episodes of the one read so far."""
        length = self.get_seq_length()
        keys, values = cast("tuple[Tensor, Tensor]", (self.keys, self.values))
        self._room = (self._reserve(keys, repeats), self._reserve(values, repeats))
        self.keys, self.values = (room[:, :, :length] for room in self._room)

    @property
    def room(self) -> tuple[Tensor, Tensor]:
        """Keys and values of whole episodes, shape (n, heads, n_positions, width), 0 where unread.

        Raises:
            InvalidArgumentError: the prompt is not shared yet.
        """
        if self._room is None:
            raise InvalidArgumentError("a layer has room once its prompt is shared")
        return self._room

    def _reserve(self, states: Tensor, repeats: int) -> Tensor:
        _, heads, length, width = states.shape
        room = states.new_zeros(repeats, heads, self._n_positions, width)
        room[:, :, :length] = states
        return room


class _FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers has no types
    """A layer of the cache whose shapes stay the same: what is not read yet is for a mask to hide.

    Args:
        keys: those read so far, with room for more; shape (n, heads, n_positions, width).
        values: the same.
        position: where the next token's are written, int64, shape (1,); is only read.
    """

    def __init__(self, keys: Tensor, values: Tensor, *, position: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.keys, self.values = keys, values
        self._position = position

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, with those of one more token, both of shape (n, heads, 1, width)."""
        del args, kwargs
        keys, values = cast("tuple[Tensor, Tensor]", (self.keys, self.values))
        return (
            keys.index_copy_(2, self._position, key_states),
            values.index_copy_(2, self._position, value_states),
        )
