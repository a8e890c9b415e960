"""Parts of somebody's own, named on a command line as `module:name`.

`my_rewards:politeness` is what the module `my_rewards` calls `politeness`: a file `my_rewards.py`
in the current folder, or anything that is installed. `module:a.b` is `b` of `a`. Naming a part runs
its module, as any import does. What a part has to be, whoever asks for it says.

An installed package may give a part a short name, by an entry point in the group of its kind
(`Kind`):

    [project.entry-points."mightnt.rewards"]
    politeness = "my_rewards:politeness"
"""

import hashlib
import importlib
import re
import sys
from enum import Enum
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from theory.errors import InvalidArgumentError

_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Kind(Enum):
    """What a part is; the value is the group of its entry points."""

    TASK = "mightnt.tasks"
    """A `llm_experiment.dialogue.task.DialogueTask`."""
    REWARD = "mightnt.rewards"
    """A function from the texts of replies to a number in [0, 1] each."""
    FEATURE = "mightnt.features"
    """A `llm_experiment.chat.features.Feature`."""
    SCRIPT = "mightnt.scripts"
    """A `llm_experiment.agent.scripts.Script`."""
    BEHAVIOUR = "mightnt.behaviours"
    """A `llm_experiment.auditing.behaviours.Behaviour`, or several."""
    BASE_POLICY = "mightnt.base_policies"
    """A `llm_experiment.base.own.OwnBase`."""


def reference_of(name: str, kind: Kind) -> str | None:
    """The reference that a name stands for: itself, or that of an installed entry point.

    Returns:
        None if it is neither.

    Example:
        >>> reference_of("my_rewards:politeness", Kind.REWARD)
        'my_rewards:politeness'
        >>> reference_of("nobody's", Kind.REWARD)
    """
    if is_reference(name):
        return name
    found = entry_points(group=kind.value, name=name)
    return next((point.value for point in found), None)


def is_reference(text: str) -> bool:
    """Whether a text has the form `module:name`, which no path or hub id has.

    Example:
        >>> [is_reference(text) for text in ("my.rewards:polite", "./rewards.py", "owner/name")]
        [True, False, False]
    """
    return _REFERENCE.fullmatch(text) is not None


def load_part(reference: str, *, option: str) -> Any:
    """What `reference` names.

    Args:
        reference: `module:name`.
        option: for which it was given, such as `--reward`, to say so in an error.

    Raises:
        InvalidArgumentError: in one line: another form, no such module, one that fails as it is
            imported, or that has no such name.

    Example:
        >>> load_part("math:sqrt", option="--reward")(9.0)
        3.0
    """
    if not is_reference(reference):
        raise InvalidArgumentError(
            f"{option} must have the form module:name, such as my_rewards:politeness, got "
            f"{reference!r}"
        )
    module_name, _, name = reference.partition(":")
    _look_in_current_folder()
    try:
        part: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(reference, option, error) from error
        raise InvalidArgumentError(
            f"{option} {reference}: there is no module {error.name}; start from the folder that "
            f"holds {error.name.partition('.')[0]}.py, or install it"
        ) from error
    except Exception as error:
        raise _failed(reference, option, error) from error
    for step in name.split("."):
        if not hasattr(part, step):
            raise InvalidArgumentError(
                f"{option} {reference}: {module_name} has no {name}; write what it defines"
            )
        part = getattr(part, step)
    return part


def fingerprint(reference: str, *, option: str) -> str:
    """SHA-256 of the file of the module that `reference` names, in hexadecimal.

    A changed part is thus another part, and what was computed with it is not taken for what the
    new one gives. Modules that this one imports are not looked at.

    Args:
        reference: of a part that `load_part` gives.
        option: see `load_part`.

    Raises:
        InvalidArgumentError: as `load_part` does, or the module is no file.
    """
    load_part(reference, option=option)
    module_name = reference.partition(":")[0]
    spec = find_spec(module_name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise InvalidArgumentError(
            f"{option} {reference}: the module {module_name} has no file, so that a run could not "
            "tell when it changes; put the part into a file of its own"
        )
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _look_in_current_folder() -> None:
    """Let modules be found in the current folder last, however this process was started."""
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def _failed(reference: str, option: str, error: Exception) -> InvalidArgumentError:
    line = (str(error).splitlines() or [""])[0]
    return InvalidArgumentError(
        f"{option} {reference}: its module fails as it is imported ({type(error).__name__}: "
        f"{line}); mend it, then try again"
    )
