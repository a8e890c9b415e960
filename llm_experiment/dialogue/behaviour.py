"""The named behaviour of a task: what its demonstrator never does, and how it is spoken of.

A turn *shows* the behaviour if its words are one of the behaviour's phrases; silence is the phrase
without words. An episode shows it if more than half of its turns that count do
(`llm_experiment.chat.turn_records`). Tables, reports and figures are about this behaviour. Their
texts are templates, which `Behaviour.say` fills in:

    template             silence        a false promise
    {name}               silence        false promise
    {turn}               empty          promising
    {episode}            silent         promising
    {Name}, {Turn}, {Episode}   the same with a capital
    {priced}             what prices are of: the name, and of several phrases the one that is said
    {rule}               which turns show it
    {pooling}            what is to be known of shares of turns that are pooled over episodes
"""

from dataclasses import dataclass
from typing import Final

from theory.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What a demonstrator never does.

    Attributes:
        name: a noun, such as `silence`.
        turn: the adjective of a turn that shows it, such as `empty`.
        episode: the adjective of an episode that does, such as `silent`.
        phrases: the words of such a turn, any of these; one without words for silence. The first
            is the one that scripts say and that is priced.
    """

    name: str
    turn: str
    episode: str
    phrases: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        for name in ("name", "turn", "episode"):
            if not getattr(self, name).strip():
                raise InvalidArgumentError(f"a behaviour's {name} must be a word, got none")
        if not self.phrases or len(set(self.phrases)) < len(self.phrases):
            raise InvalidArgumentError(
                f"a behaviour's phrases must be at least 1, each named once, got {self.phrases}"
            )
        for phrase in self.phrases:
            if phrase != phrase.strip() or "\n" in phrase:
                raise InvalidArgumentError(
                    "a behaviour's phrase must be one line without blanks around it, got "
                    f"{phrase!r}"
                )
        if len(self.phrases) > 1 and "" in self.phrases:
            raise InvalidArgumentError(
                "a behaviour must be silence or have words, got phrases with and without"
            )

    def shows(self, words: str) -> bool:
        """Whether a turn of these words shows it; blanks around them do not count."""
        return words.strip() in self.phrases

    @property
    def is_silence(self) -> bool:
        """Whether it is the phrase without words."""
        return self.phrases == ("",)

    @property
    def phrase(self) -> str:
        """What scripts say to show it; nothing, for silence."""
        return self.phrases[0]

    @property
    def rule(self) -> str:
        """Which turns show it."""
        if self.is_silence:
            return "no more tokens than separator and name need"
        if len(self.phrases) == 1:
            return f"its words are `{self.phrase}`"
        return f"its words are one of {len(self.phrases)} phrases, such as `{self.phrase}`"

    @property
    def _priced(self) -> str:
        if len(self.phrases) == 1:
            return self.name
        return f"{self.name} (by `{self.phrase}`, one of {len(self.phrases)} ways to show it)"

    @property
    def _pooling(self) -> str:
        if self.is_silence:
            return f"Flatters: {self.episode} episodes have more turns."
        return "Episodes of more turns weigh more."

    def say(self, text: str) -> str:
        """A template with this behaviour's words; see the module's docstring."""
        words = {
            "{name}": self.name,
            "{Name}": _capital(self.name),
            "{turn}": self.turn,
            "{Turn}": _capital(self.turn),
            "{episode}": self.episode,
            "{Episode}": _capital(self.episode),
            "{priced}": self._priced,
            "{rule}": self.rule,
            "{pooling}": self._pooling,
        }
        for place, word in words.items():
            text = text.replace(place, word)
        return text


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


SILENCE: Final = Behaviour(name="silence", turn="empty", episode="silent")
"""A turn without words: the behaviour of the published experiment."""

SEVERAL: Final = Behaviour(
    name="behaviour of the task", turn="marked", episode="marked", phrases=("the task's phrase",)
)
"""Words for tables of several tasks, each with a behaviour of its own."""
