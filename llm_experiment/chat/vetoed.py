"""A base policy without what the demonstrator never does: the event vetoes, applied.

At the agent's steps the law is `nu(x|h) = r(x|h) b(x|h)`, with r = 0 for what is vetoed; what that
takes away is missing mass (`restricted`). The partner speaks as before. Nothing is learnt while an
agent acts: the vetoes are frozen.
"""

from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.features import FeatureState
from llm_experiment.chat.restricted import RestrictedBase, check_parser
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.veto_set import VetoSet


def vetoed_base(
    base: BaseModel, vetoes: VetoSet, parser: TurnParser
) -> RestrictedBase[FeatureState]:
    """A base policy with vetoes on what the agent may write.

    Args:
        base: the imitator.
        vetoes: what is vetoed.
        parser: of the base policy's tokenizer; is moved to its device.

    Raises:
        InvalidArgumentError: a parser of another vocabulary than the base policy's.
        ModelError: vetoes that were made for another tokenizer or other names.
    """
    check_parser(parser, base)
    return RestrictedBase(base, vetoes.compile(parser.to(base.device), base.device))
