"""Dialogue tasks as data: who speaks, in which styles, with which words.

A *transcript* is a fixed note, then turns, one a line, spoken alternately by two different
roles (`Teacher: Yes?`). A speaker has a latent *style*. A turn has a *mood* (question, praise,
...), drawn from the style given the mood of the turn replied to, and its words come from one of
the style's *templates* for that mood. A template is a sentence with `{slots}`; a slot stands for
one of several phrases, equally likely, which may hold slots in turn but never themselves. So
every turn is finite, and each task's language is that of a finite automaton.

The text of a transcript is cut into *tokens*: a line break, a punctuation mark, or a word with
the space before it (a word that begins a line, as names do, has none). A transcript's text is
therefore its tokens joined by nothing.
"""

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

from llm_experiment.config import WorldConfig
from llm_experiment.dialogue import tasks
from llm_experiment.dialogue.behaviour import SILENCE, Behaviour
from llm_experiment.plug_in import Kind, load_part, reference_of
from theory.errors import InvalidArgumentError

START: Final = "start"
"""The mood that the first turn of a transcript replies to."""
EMPTY: Final = "empty"
"""The mood of a turn without words."""
NEWLINE: Final = "\n"
COLON: Final = ":"
PAD: Final = "<pad>"
UNKNOWN: Final = "<unk>"
SPECIAL_TOKENS: Final = (PAD, UNKNOWN)
"""Tokens that a tokenizer needs and that no speaker ever says."""
NEGATIVE: Final = "NEGATIVE"
POSITIVE: Final = "POSITIVE"
LABELS: Final = (NEGATIVE, POSITIVE)
"""What a sentiment classifier may call a turn, by index, as in SST-2."""

_TOKEN: Final = re.compile(r"\n|[.,?!:]| ?[^\s.,?!:]+")
_ELEMENT: Final = re.compile(r"\{(?P<slot>\w+)\}|[.,?!]|[^\s{}.,?!:]+")


class Slot(NamedTuple):
    """A place in a template for one of several phrases."""

    name: str


Element: TypeAlias = str | Slot
"""A token, or a slot."""
Remainder: TypeAlias = tuple[Element, ...]
"""What is still to be said of a turn; () leaves only the line break."""


def tokenize(text: str) -> tuple[str, ...]:
    """The tokens of a text; joined, they are the text again.

    Raises:
        InvalidArgumentError: blanks that belong to no word (double, trailing, tabs).
    """
    tokens = tuple(_TOKEN.findall(text))
    if "".join(tokens) != text:
        raise InvalidArgumentError(
            f"text must have single spaces before words and no others, got {text!r}"
        )
    return tokens


def parse_template(text: str) -> Remainder:
    """A template or phrase as elements, each word with the space before it."""
    elements: list[Element] = []
    for match in _ELEMENT.finditer(text):
        if match["slot"]:
            elements.append(Slot(match["slot"]))
        else:
            piece = match[0]
            elements.append(piece if piece in ".,?!" else f" {piece}")
    if "".join(_ELEMENT.split(text)[::2]).strip() or COLON in text or NEWLINE in text:
        raise InvalidArgumentError(f"cannot read the template {text!r}")
    return tuple(elements)


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The probability that a turn is empty, by what went before.

    Attributes:
        unprompted: if it replies to words, or opens the dialogue.
        after_empty: if it replies to an empty turn, its own speaker's last turn having words
            (or being none).
        once_silent: if it replies to an empty turn and its own speaker's last was empty too.
    """

    unprompted: float
    after_empty: float
    once_silent: float

    def __post_init__(self) -> None:
        for name in ("unprompted", "after_empty", "once_silent"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgumentError(
                    f"Silence.{name} must lie in [0, 1], got {getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one kind of speaker speaks.

    Attributes:
        says: for each mood, the templates of its turns, equally likely.
        replies: for the mood of the turn replied to (`START` and `EMPTY` included), weights of
            the moods of the reply if it has words; they need not sum to 1.
        silence: how probable a reply without words is, for roles that may be silent.
    """

    says: Mapping[str, tuple[str, ...]]
    replies: Mapping[str, Mapping[str, float]]
    silence: Silence


@dataclass(frozen=True, kw_only=True)
class Role:
    """Who may speak.

    Attributes:
        styles: weights of the styles that a speaker of this role has; absent ones have none.
        may_be_silent: if False, an empty turn has probability exactly 0 whatever the style.
    """

    styles: Mapping[str, float]
    may_be_silent: bool = True


@dataclass(frozen=True, kw_only=True)
class DialogueTask:
    """One world of dialogues.

    Attributes:
        name: that of the module of `llm_experiment.dialogue.tasks` which defines it as `TASK`.
        note: the text before the first turn, its line break included; may be empty.
        roles: by name.
        pairs: who talks with whom; equally likely, in either order.
        styles: by name.
        slots: by name, the phrases that may stand there, equally likely.
        style_redraw: probability that a speaker's style is drawn anew before a turn.
        positive: for each mood, `EMPTY` excluded, the probability that a turn of that mood is
            labelled POSITIVE; what the reward model learns.
        prompt: the starting transcript, up to where the agent takes over.
        agent: the role that the agent speaks.
        partner: the role that answers it.
        behaviour: what the demonstrator in the agent's role never does, and the task is about.
    """

    name: str
    note: str
    roles: Mapping[str, Role]
    pairs: tuple[tuple[str, str], ...]
    styles: Mapping[str, Style]
    slots: Mapping[str, tuple[str, ...]]
    style_redraw: float
    positive: Mapping[str, float]
    prompt: str
    agent: str
    partner: str
    behaviour: Behaviour = SILENCE
    moods: tuple[str, ...] = field(init=False)
    """START, EMPTY, and the moods of turns with words."""

    def __post_init__(self) -> None:
        said = dict.fromkeys(mood for style in self.styles.values() for mood in style.says)
        object.__setattr__(self, "moods", (START, EMPTY, *said))
        self._check_styles()
        self._check_numbers()
        self._check_names()
        self._check_roles()
        self._check_grammar()

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token: the special ones, marks, names, then words in alphabetical order."""
        words = set(tokenize(self.note)) | set(tokenize(self.prompt))
        for _, _, template in self.templates():
            words |= set(self._tokens_within(parse_template(template)))
        marks = (NEWLINE, COLON, *sorted(words & set(".,?!")))
        names = tuple(self.roles)
        return (*SPECIAL_TOKENS, *marks, *names, *sorted(words - {*marks, *names}))

    def templates(self) -> Iterator[tuple[str, str, str]]:
        """All (style, mood, template)."""
        for style_name, style in self.styles.items():
            for mood, texts in style.says.items():
                for text in texts:
                    yield style_name, mood, text

    def next_words(self, remainder: Remainder) -> dict[tuple[str, Remainder], float]:
        """The next token of a turn of which `remainder` is to be said, with what is left then.

        Returns:
            Probabilities of (token, remainder after it); the line break leaves ().
        """
        if not remainder:
            return {(NEWLINE, ()): 1.0}
        head, rest = remainder[0], remainder[1:]
        if isinstance(head, str):
            return {(head, rest): 1.0}
        following: Counter[tuple[str, Remainder]] = Counter()
        phrases = self.slots[head.name]
        for phrase in phrases:
            for step, probability in self.next_words((*parse_template(phrase), *rest)).items():
                following[step] += probability / len(phrases)  # type: ignore[assignment]  # floats
        return dict(following)

    def never(self, role: str) -> bool:
        """Whether a role, if there is one, never shows the task's behaviour."""
        if role not in self.roles:
            return False
        if self.behaviour.is_silence and not self.roles[role].may_be_silent:
            return True
        return not any(map(self.may_show, self.roles[role].styles))

    def may_show(self, style: str) -> bool:
        """Whether a speaker of a style ever shows the task's behaviour (is silent, if it may be).

        Raises:
            InvalidArgumentError: no such style.
        """
        if style not in self.styles:
            raise InvalidArgumentError(f"{style!r} is not among the styles {tuple(self.styles)}")
        if self.behaviour.is_silence:
            silence = self.styles[style].silence
            return max(silence.unprompted, silence.after_empty, silence.once_silent) > 0
        texts = [text for name, _, text in self.templates() if name == style]
        return any(
            self._may_say(parse_template(text), parse_template(phrase))
            for text in texts
            for phrase in self.behaviour.phrases
        )

    def _may_say(self, remainder: Remainder, words: Remainder) -> bool:
        """Whether a template can be said as just these words."""
        if not words:
            return (NEWLINE, ()) in self.next_words(remainder)
        return any(
            self._may_say(rest, words[1:])
            for token, rest in self.next_words(remainder)
            if token == words[0]
        )

    def _tokens_within(self, elements: Remainder) -> Iterator[str]:
        for element in elements:
            if isinstance(element, str):
                yield element
            else:
                for phrase in self.slots[element.name]:
                    yield from self._tokens_within(parse_template(phrase))

    def _check_numbers(self) -> None:
        if not 0 <= self.style_redraw <= 1:
            raise InvalidArgumentError(f"style_redraw must lie in [0, 1], got {self.style_redraw}")
        for mood, probability in self.positive.items():
            if not 0 <= probability <= 1:
                raise InvalidArgumentError(
                    f"positive[{mood!r}] must lie in [0, 1], got {probability}"
                )
        if set(self.positive) != set(self.moods) - {START, EMPTY}:
            raise InvalidArgumentError(
                f"positive must name the moods {self.moods[2:]}, got {tuple(self.positive)}"
            )

    def _check_names(self) -> None:
        for name in self.roles:
            if tokenize(name) != (name,) or name.startswith(" "):
                raise InvalidArgumentError(f"a role's name must be one word, got {name!r}")
        for pair in self.pairs:
            if len(set(pair) & set(self.roles)) != 2:
                raise InvalidArgumentError(f"a pair must be two different roles, got {pair}")
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs):
            raise InvalidArgumentError(f"a pair must be listed once, got {self.pairs}")
        if {self.agent, self.partner} not in map(set, self.pairs):
            raise InvalidArgumentError(
                f"agent {self.agent!r} and partner {self.partner!r} must be one of the pairs"
            )
        if set(tokenize(self.note)) & set(self.roles):
            raise InvalidArgumentError(f"the note must name no role, got {self.note!r}")

    def _check_roles(self) -> None:
        for name, role in self.roles.items():
            _check_weights(role.styles, self.styles, name=f"styles of role {name!r}")

    def _check_styles(self) -> None:
        spoken = self.moods[2:]
        for name, style in self.styles.items():
            for mood, texts in style.says.items():
                if mood in (START, EMPTY):
                    raise InvalidArgumentError(f"{mood!r} is no mood of a turn with words")
                if not texts:
                    raise InvalidArgumentError(f"style {name!r} has no template for {mood!r}")
            if set(style.replies) != set(self.moods):
                raise InvalidArgumentError(
                    f"style {name!r} must reply to the moods {(START, EMPTY, *spoken)}, got "
                    f"{tuple(style.replies)}"
                )
            for mood, weights in style.replies.items():
                _check_weights(weights, style.says, name=f"replies of style {name!r} to {mood!r}")

    def _check_grammar(self) -> None:
        for name in self.slots:
            self._check_slot(Slot(name), within=())
        for style, _, text in self.templates():
            elements = parse_template(text)
            for element in elements:
                if isinstance(element, Slot):
                    self._check_slot(element, within=())
            if (NEWLINE, ()) in self.next_words(elements):
                raise InvalidArgumentError(
                    f"template {text!r} of style {style!r} may be empty; silence has its own rule"
                )
            if {token.strip() for token in self._tokens_within(elements)} & set(self.roles):
                raise InvalidArgumentError(f"template {text!r} of style {style!r} names a role")

    def _check_slot(self, slot: Slot, *, within: tuple[str, ...]) -> None:
        if slot.name in within:
            raise InvalidArgumentError(f"slot {{{slot.name}}} holds itself")
        if not self.slots.get(slot.name):
            raise InvalidArgumentError(f"slot {{{slot.name}}} has no phrases")
        for phrase in self.slots[slot.name]:
            for element in parse_template(phrase):
                if isinstance(element, Slot):
                    self._check_slot(element, within=(*within, slot.name))


def _check_weights(weights: Mapping[str, float], known: Mapping[str, object], *, name: str) -> None:
    for key, weight in weights.items():
        if key not in known:
            raise InvalidArgumentError(f"{name}: {key!r} is not among {tuple(known)}")
        if not 0 < weight < float("inf"):
            raise InvalidArgumentError(f"{name}: the weight of {key!r} must be > 0, got {weight}")
    if not weights:
        raise InvalidArgumentError(f"{name}: at least one weight is needed")


def task_names() -> tuple[str, ...]:
    """The tasks that there are: the modules of `llm_experiment.dialogue.tasks`."""
    return tuple(module.name for module in pkgutil.iter_modules(tasks.__path__))


def load_task(name: str) -> DialogueTask:
    """The task called `name`: a module here, or one of somebody's own (`llm_experiment.plug_in`).

    `module/variant` is one of a module's `VARIANTS`: the same world about another behaviour.

    Raises:
        InvalidArgumentError: no such task; the message lists those that are here.
    """
    module_name, _, variant = name.partition("/")
    if module_name in task_names():
        module = importlib.import_module(f"{tasks.__name__}.{module_name}")
        task: Any = _variant(module_name, variant, module) if variant else module.TASK
    else:
        reference = reference_of(name, Kind.TASK)
        if reference is None:
            raise InvalidArgumentError(
                f"unknown task {name!r}; there are {', '.join(task_names())}, and your own as "
                "module:name"
            )
        task = load_part(reference, option="--task")
    if not isinstance(task, DialogueTask):
        raise InvalidArgumentError(
            f"the task {name} must be a DialogueTask, got a {type(task).__name__}"
        )
    return task


def _variant(name: str, variant: str, module: Any) -> Any:
    """A task's variant.

    Raises:
        InvalidArgumentError: there is none of that name.
    """
    variants: Mapping[str, DialogueTask] = getattr(module, "VARIANTS", {})
    if variant not in variants:
        raise InvalidArgumentError(
            f"task {name!r} has no variant {variant!r}; there are {', '.join(variants) or 'none'}"
        )
    return variants[variant]


def speakers_of(config: WorldConfig) -> tuple[str, str]:
    """The names before the agent's and its partner's turns in a world.

    They are those of the configuration. Its defaults, Teacher and Student, give way to the task's
    own speakers where the prompt is the task's and the task has no such role.
    """
    names = (config.agent_name, config.partner_name)
    if config.prompt is not None:
        return names
    task = load_task(config.task)
    agent, partner = (
        own if name == default and default not in task.roles else name
        for name, default, own in zip(
            names,
            (WorldConfig.agent_name, WorldConfig.partner_name),
            (task.agent, task.partner),
            strict=True,
        )
    )
    return agent, partner
