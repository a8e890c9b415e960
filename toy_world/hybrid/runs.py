"""A learner at work: offline data first, then episodes of its own, then the policy it hands over.

Every round the optimist's policy acts and its episode joins the data. After some of the rounds the
pessimist's policy is asked for: what would be handed over if this round were the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from theory.errors import InvalidArgumentError
from toy_world.hybrid.mdp import Data, FiniteMDP, Floats, Ints, with_an_episode
from toy_world.hybrid.oracle import Attitude, Oracle


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What R runs of a learner came to.

    Attributes:
        checkpoints: N_1, numbers of online episodes, increasing.
        gaps: `V* - V` of the policy handed over after each of them, shape (n, R).
        regrets: sum over the online episodes before of `V* - V` of the policy that acted,
            shape (n, R).
        uncovered: in how many runs at how many checkpoints the error of the policy handed over
            exceeded its uncertainty, shape (n, R).
        data: at the end.
        final: the policy that is handed over at the end, shape (R, H, S).
        certificate_gap: how much any of the plans may be short of the best plan.
    """

    checkpoints: tuple[int, ...]
    gaps: Floats
    regrets: Floats
    uncovered: Ints
    data: Data
    final: Ints
    certificate_gap: float


def learn(
    mdp: FiniteMDP,
    oracle: Oracle,
    offline: Data,
    *,
    checkpoints: Sequence[int],
    rng: np.random.Generator,
) -> Learned:
    """Learn from offline data and then online, for as many runs as there are data of.

    Args:
        mdp: the truth, which the learner knows only by what its episodes show.
        oracle: makes estimates of data.
        offline: of R runs, N_0 episodes each, or none.
        checkpoints: N_1 after which the policy handed over is looked at, increasing; the last
            ends it. (0,) alone is learning offline.
        rng: source of randomness.

    Raises:
        InvalidArgumentError: checkpoints that do not increase from 0 or more.
    """
    times = tuple(checkpoints)
    if not times or times[0] < 0 or any(b <= a for a, b in pairwise(times)):
        raise InvalidArgumentError(f"checkpoints must increase and be >= 0, got {times}")
    truth = mdp.model(offline.n_runs)
    best = truth.optimum().values
    regret = np.zeros(offline.n_runs)
    gaps, regrets, uncovered = [], [], []
    widest, data = 0.0, offline
    for n in range(times[-1] + 1):
        estimate = oracle(data)
        if n in times:
            last = estimate.best(Attitude.PESSIMISM)
            values = truth.values(last.policies)
            errors = np.abs(values - estimate.values(last.policies))
            uncovered.append(errors > estimate.uncertainties(last.policies))
            gaps.append(best - values)
            regrets.append(regret.copy())
            widest = max(widest, last.gap)
        if n < times[-1]:
            acting = estimate.best(Attitude.OPTIMISM)
            widest = max(widest, acting.gap)
            regret += best - truth.values(acting.policies)
            data = with_an_episode(mdp, acting.policies, data, rng)
    return Learned(
        checkpoints=times,
        gaps=np.array(gaps),
        regrets=np.array(regrets),
        uncovered=np.array(uncovered, dtype=np.int64),
        data=data,
        final=last.policies,
        certificate_gap=widest,
    )
