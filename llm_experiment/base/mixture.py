r"""An explicitly Bayesian base policy for language: the exact mixture over a family of processes.

A language model is an imitator of which no prior is known. Here it is known. The *family* of a task
holds processes nu that differ from the demonstrator tau by how the agent's role speaks:

    as <role>           as another of the task's roles does; `as <agent>` is tau itself
    in style <s>        in the one style s from the first turn on
    from token T on ... as tau, and in style s in all turns that begin after T tokens of transcript

where the styles are those that can show the task's behaviour. The last are the `switch(E, pi, tau)`
of Theorem 1, with E "the turn began after T tokens": whatever tau has said by then, style s goes on
from there (`llm_experiment.dialogue.process.SwitchedProcess`). Prior weights are 2^-bits, where a
member's program is a tag of 2 bits, log2 of the number of roles or styles for which one, and, for
T = 2^j, Elias' delta code of j + 1. The *mixture* is
`xi(x|h) = sum_nu w(nu|h) nu(x|h)`, its posterior updated by every token (`Update.ALL`), by the
exact filters' own likelihoods. Demonstrations multiply the prior by each member's likelihood of
them.

**Theorem 1, finite form.** For every policy pi, every nu and every way in which the others speak,

    prod_j xi(a_j|h_j) >= w(nu|h) prod_j nu(a_j|h_j)

along any transcript whose other tokens all members predict alike, so that
`KL(pi||xi) <= -ln w(nu|h) + KL(pi||nu)`: to speak as nu does costs at most `-ln w(nu|h)` nats. Of
demonstrations of at most T tokens the switched members have tau's own likelihood. Their weight
relative to tau's, and so the price after T tokens, does not fall with the number of demonstrations,
while that of members which differ from tau before T goes to 0.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.base.ensemble import EnsembleBase
from llm_experiment.base.process import ProcessBase
from llm_experiment.dialogue.process import DialogueProcess, SwitchedProcess
from llm_experiment.dialogue.task import DialogueTask, Role
from theory.bayes_mixture import Update, predictive_log_probs
from theory.bounds import elias_delta_bits
from theory.errors import InvalidArgumentError

SWITCH_AFTER: Final = 128
"""T of the base policy `mixture`, and the length of its demonstrations."""
N_DEMONSTRATIONS: Final = 16
"""Dialogues that its prior has learnt from."""
_TAG_BITS: Final = 2
_SEED: Final = 0
"""Of those."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process of a family.

    Attributes:
        name: such as `as Guest` or `from token 128 on in style both`.
        process: the task's, with the agent's role speaking so.
        bits: the length of its program.
        switch_after: T, in tokens; None for members that do not switch. One that does is the
            demonstrator up to then.
    """

    name: str
    process: DialogueProcess
    bits: float
    switch_after: int | None = None


def family(task: DialogueTask, *, switch_after: int | None = None) -> tuple[Member, ...]:
    """The family of a task, the demonstrator first.

    Roles that speak alike are one member, and so are a role of one style and that style; the
    partner's role, and styles that only the partner has, are left out.

    Args:
        task: of the demonstrator.
        switch_after: T, a power of two, to have members that switch to a style after T tokens;
            None for none.

    Raises:
        InvalidArgumentError: T is no power of two.
    """
    if switch_after is not None and (switch_after < 1 or switch_after.bit_count() != 1):
        raise InvalidArgumentError(f"switch_after must be a power of two, got {switch_after}")
    agent = task.roles[task.agent]
    roles: dict[str, Role] = {task.agent: agent}
    for name, role in task.roles.items():
        if name != task.partner and role not in roles.values():
            roles[name] = role
    everyones = dict.fromkeys(style for role in roles.values() for style in role.styles)
    styles = [style for style in everyones if task.may_show(style)]
    found = [
        Member(
            name=f"as {name}",
            process=DialogueProcess(task if name == task.agent else _speaking_as(task, role)),
            bits=_TAG_BITS + math.log2(len(roles)),
        )
        for name, role in roles.items()
    ]
    silence = max(role.may_be_silent for role in roles.values())
    alone = {style: Role(styles={style: 1.0}, may_be_silent=silence) for style in styles}
    found += [
        Member(
            name=f"in style {style}",
            process=DialogueProcess(_speaking_as(task, role)),
            bits=_TAG_BITS + math.log2(len(styles)),
        )
        for style, role in alone.items()
        if role not in roles.values()
    ]
    if switch_after is not None:
        found += [
            Member(
                name=f"from token {switch_after} on in style {style}",
                process=SwitchedProcess(
                    task, style=style, after=switch_after, may_be_silent=silence
                ),
                bits=_TAG_BITS
                + math.log2(len(styles))
                + elias_delta_bits(switch_after.bit_length()),
                switch_after=switch_after,
            )
            for style in styles
        ]
    return tuple(found)


def _speaking_as(task: DialogueTask, role: Role) -> DialogueTask:
    """The task with another role for the agent, who need not be able to write its prompt."""
    return replace(task, roles={**task.roles, task.agent: role}, prompt=task.note)


def default_mixture(task: DialogueTask) -> EnsembleBase:
    """The base policy that `mixture` names: of `SWITCH_AFTER` and `N_DEMONSTRATIONS`."""
    return mixture_base(
        family(task, switch_after=SWITCH_AFTER), demonstrations=default_demonstrations(task)
    )


def default_demonstrations(task: DialogueTask) -> NDArray[np.int64]:
    """What it has learnt from: dialogues of the demonstrator and its partner."""
    return DialogueProcess(task).sample(
        np.random.default_rng(_SEED),
        N_DEMONSTRATIONS,
        SWITCH_AFTER,
        speakers=(task.partner, task.agent),
    )


def mixture_base(
    members: Sequence[Member], *, demonstrations: NDArray[np.int64] | None = None
) -> EnsembleBase:
    """The mixture over a family as base policy.

    Args:
        members: of the family, the demonstrator first.
        demonstrations: transcripts of the demonstrator that the prior has learnt from, shape
            (dialogues, tokens), no longer than any member's T; none if left out.

    Raises:
        InvalidArgumentError: a demonstration in which a member has switched.
    """
    return EnsembleBase(
        [ProcessBase(member.process) for member in members],
        log_prior=log_weights(members, demonstrations).tolist(),
        update=Update.ALL,
        combine=predictive_log_probs,
    )


def log_weights(
    members: Sequence[Member], demonstrations: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The natural logarithms of the members' weights given demonstrations, not normalised.

    Args:
        members: see `mixture_base`.
        demonstrations: likewise.

    Raises:
        InvalidArgumentError: a demonstration in which a member has switched.
    """
    log_w = np.array([-member.bits * math.log(2) for member in members])
    if demonstrations is None or not len(demonstrations):
        return log_w
    for member in members:
        if member.switch_after is not None and demonstrations.shape[1] > member.switch_after:
            raise InvalidArgumentError(
                f"demonstrations must have at most {member.switch_after} tokens, after which "
                f"members switch, got {demonstrations.shape[1]}"
            )
    own = _log_likelihood(members[0], demonstrations)
    return log_w + [
        own if member.switch_after is not None else _log_likelihood(member, demonstrations)
        for member in members
    ]


def _log_likelihood(member: Member, transcripts: NDArray[np.int64]) -> float:
    return float(member.process.log_likelihoods(transcripts).sum())


def phrase_tokens(process: DialogueProcess) -> Iterator[int]:
    """The tokens with which the agent's turn shows the task's behaviour, the hand-over included.

    Args:
        process: of the task; word-level tokens have one spelling.
    """
    task = process.task
    words = f"{task.note}{task.agent}: {task.behaviour.phrase}".rstrip()
    start = len(process.encode(f"{task.note}{task.agent}:"))
    yield from process.encode(f"{words}\n{task.partner}:")[start:].tolist()
