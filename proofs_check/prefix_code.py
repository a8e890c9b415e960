"""The language's code is prefix-free and complete: its Kraft sum is exactly 1.

For a type whose productions have tags of n_i bits and s_i arguments of the type itself, all
other arguments having Kraft sum 1, the Kraft sum is the least solution in [0, 1] of
`S = f(S) = sum_i 2^-n_i S^s_i`. f is convex with `f(1) = sum 2^-n_i`. If that is 1 and
`f'(1) = sum 2^-n_i s_i < 1`, then `f(S) >= 1 + f'(1) (S - 1) > S` for S < 1: the least solution
is 1. Decoding every string of N bits checks the implementation against this.
"""

from fractions import Fraction
from itertools import product
from typing import Final

from proofs_check.sabotage import Sabotage, with_result
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    examine_all,
    verdict_of,
)
from theory.errors import InvalidArgumentError
from theory.paper import Statement
from toy_world.programs.codes import BitReader, Choice
from toy_world.programs.language import Language

LANGUAGES: Final = tuple(
    Language(n_actions=n, n_observations=m) for n, m in ((1, 1), (2, 2), (3, 2), (2, 5))
)


def kraft_equality(
    effort: Effort, *, tags_left_out: int = 0, children_factor: Fraction = Fraction(1)
) -> Outcome:
    """Of every type: `f(1) = 1` without k of the tags (k = 0), and `c f'(1) < 1` (c = 1)."""
    del effort

    def decide(choice: Choice) -> Verdict:
        tags = sorted((p.tag for p in choice.productions), key=len)
        kept = tags[: len(tags) - tags_left_out]
        free = not any(b.startswith(a) for a in kept for b in kept if a != b)
        total = sum(Fraction(1, 2 ** len(tag)) for tag in kept)
        return verdict_of(free and total == 1 and children_factor * choice.mean_self_arguments < 1)

    return examine_all(
        (choice for language in LANGUAGES for choice in language.types),
        decide,
        show=lambda choice: f"type {choice.name}, {choice.counts(9)} of up to 9 bits",
    )


def every_string_decodes_once(effort: Effort, *, count_offset: int = 0) -> Outcome:
    """Among all strings of N bits, `2^(N-n) (c_n + k)` begin with a program of n bits (k = 0).

    c_n is the number of programs of n bits by the grammar's generating function; the strings are
    decoded bit by bit, and each decoded program encodes to the bits that were read.
    """
    n_bits = {Effort.SMALLEST: 9, Effort.DEFAULT: 13, Effort.THOROUGH: 17}[effort]
    language = Language(n_actions=2, n_observations=3)

    def decide(choice: Choice) -> Verdict:
        found = [0] * (n_bits + 1)
        for string in product("01", repeat=n_bits):
            bits = "".join(string)
            reader = BitReader(bits)
            try:
                program = choice.decode(reader)
            except InvalidArgumentError:  # the string ends inside a program
                continue
            code = choice.encode(program)
            found[len(code)] += bits.startswith(code)
        expected = [
            2 ** (n_bits - n) * (count + (count_offset if count else 0))
            for n, count in enumerate(choice.counts(n_bits))
        ]
        return verdict_of(found == expected)

    return examine_all(
        (language.events, language.policies, language.utilities),
        decide,
        show=lambda choice: f"type {choice.name}, {n_bits} bits",
    )


CHECKS: Final = (
    Check(
        label="kraft-equality",
        words="The code of every type of the language is prefix-free with Kraft sum exactly 1.",
        formula="sum_p 2^-len(p) = 1",
        kind=Kind.EXHAUSTIVE,
        scope="every type over 4 pairs of alphabets; all lengths, by the fixed-point argument",
        examine=kraft_equality,
        mutations=(
            Mutation(name="a tag left out", constants={"tags_left_out": 1}),
            Mutation(name="4 times the children", constants={"children_factor": Fraction(4)}),
        ),
        least_informative=24,
        statements=(Statement.LITTLE_CONSTRAINT,),
    ),
    Check(
        label="kraft-decoding",
        words="Every string of bits begins with at most one program, as many with one of n bits "
        "as the grammar counts.",
        formula="#{strings of N bits that begin with a program of n bits} = 2^(N-n) c_n",
        kind=Kind.EXHAUSTIVE,
        scope="all strings of 13 bits, as events, policies and utilities; |A| = 2, |O| = 3",
        examine=every_string_decodes_once,
        least_informative=3,
        mutations=(Mutation(name="one program more", constants={"count_offset": 1}),),
        sabotages=(
            Sabotage(
                name="a program more of every length",
                owner=Choice,
                attribute="counts",
                fault=with_result(lambda counts: [count + 1 for count in counts]),
            ),
            Sabotage(
                name="a bit fewer",
                owner=Choice,
                attribute="encode",
                fault=with_result(lambda code: code[:-1]),
            ),
        ),
        statements=(Statement.LITTLE_CONSTRAINT,),
    ),
)
