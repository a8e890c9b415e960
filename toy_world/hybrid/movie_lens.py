"""A linear contextual bandit of ratings: users are contexts, films are actions.

Ratings come from a file of MovieLens, or are drawn from a seed (`drawn_ratings`: tastes and films
in a few dimensions, some pairs rated, whole stars), and go through the same steps. Of the users and
films with the most ratings a matrix is made, stars scaled to [0, 1], a pair that is not rated
holding its film's mean; its best approximation of rank d - 1 (a singular value decomposition)
gives `phi(s, a) = (1, u_s1 v_a1, ..., u_s,d-1 v_a,d-1)`, and theta the singular values. So the
reward, the approximation moved and scaled into [0, 1], is linear in phi exactly. Features are
scaled to a length of at most 1.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from theory.errors import InvalidArgumentError, ResultsError
from toy_world.hybrid.mdp import FiniteMDP, Floats, Ints

STARS: Final = (1.0, 5.0)
"""The least and the greatest rating."""
_FIELDS: Final = re.compile(r"::|[\t,]")
_RATED_SHARE: Final = 0.5
_NOISE_STARS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """Who rated what, and how.

    Attributes:
        users: shape (n,).
        films: shape (n,).
        stars: 1 to 5, shape (n,).
    """

    users: Ints
    films: Ints
    stars: Floats


@dataclass(frozen=True, kw_only=True)
class LinearBandit:
    """A bandit whose rewards are linear in known features.

    Attributes:
        mdp: a process of one step; contexts are its states.
        features: phi, of length at most 1, shape (S, A, d).
        theta: `rewards = features @ theta`, shape (d,).
    """

    mdp: FiniteMDP
    features: Floats
    theta: Floats


def read_ratings(path: Path) -> Ratings:
    """The ratings in a file of MovieLens.

    A line is user, film, stars and a time, set apart by tabs (`u.data` of the 100K set), `::`
    (`ratings.dat` of the 1M set) or commas (`ratings.csv`, whose first line has the names).

    Raises:
        ResultsError: the file cannot be read, or a line of it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {path}: {error}; name a file of ratings") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = _FIELDS.split(line.strip())
        if fields[0] == "userId" and number == 1:
            continue
        try:
            user, film, stars = int(fields[0]), int(fields[1]), float(fields[2])
        except (ValueError, IndexError):
            raise ResultsError(
                f"{path}, line {number}: a line must be user, film, stars and time, got '{line}'"
            ) from None
        rows.append((user, film, stars))
    if not rows:
        raise ResultsError(f"{path} holds no rating; name a file of ratings")
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Ratings(users=columns[0], films=columns[1], stars=columns[2])


def drawn_ratings(
    *, n_users: int, n_films: int, n_tastes: int, rng: np.random.Generator
) -> Ratings:
    """Ratings of users whose tastes have a few dimensions; half of all pairs are rated.

    Args:
        n_users: how many.
        n_films: how many.
        n_tastes: dimensions of taste.
        rng: source of randomness.
    """
    tastes = rng.normal(size=(n_users, n_tastes))
    films = rng.normal(size=(n_films, n_tastes))
    liking = tastes @ films.T / np.sqrt(n_tastes) + rng.normal(
        scale=_NOISE_STARS, size=(n_users, n_films)
    )
    rated = rng.random((n_users, n_films)) < _RATED_SHARE
    users, chosen = np.nonzero(rated)
    return Ratings(users=users, films=chosen, stars=np.clip(np.round(3 + liking[rated]), *STARS))


def bandit_of(ratings: Ratings, *, n_users: int, n_films: int, dimension: int) -> LinearBandit:
    """The bandit of the users and films with the most ratings; every user is as frequent.

    Args:
        ratings: of which it is made.
        n_users: S.
        n_films: A.
        dimension: d, at least 2 and at most one more than the lesser of S and A.

    Raises:
        InvalidArgumentError: fewer users or films than that, or another dimension.
    """
    users, films = (
        _most_frequent(ids, n) for ids, n in ((ratings.users, n_users), (ratings.films, n_films))
    )
    if (len(users), len(films)) != (n_users, n_films):
        raise InvalidArgumentError(
            f"{n_users} users and {n_films} films are asked for, and {len(users)} and {len(films)} "
            "have ratings; ask for fewer"
        )
    if not 2 <= dimension <= min(n_users, n_films) + 1:
        raise InvalidArgumentError(
            f"dimension must lie in 2..{min(n_users, n_films) + 1}, got {dimension}"
        )
    matrix = _complete(ratings, users, films)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    rank = dimension - 1
    products = left[:, None, :rank] * right[:rank].T[None]
    approximation = products @ singular[:rank]
    least, spread = approximation.min(), np.ptp(approximation)
    features = np.concatenate([np.ones((n_users, n_films, 1)), products], axis=-1)
    longest = np.linalg.norm(features, axis=-1).max()
    theta = np.concatenate([[-least], singular[:rank]]) / spread
    features, theta = features / longest, theta * longest
    return LinearBandit(
        mdp=FiniteMDP(
            rewards=np.clip(features @ theta, 0, 1),
            successors=np.zeros((n_users, n_films, 1), dtype=np.int64),
            probabilities=np.ones((n_users, n_films, 1)),
            initial=np.full(n_users, 1 / n_users),
            horizon=1,
        ),
        features=features,
        theta=theta,
    )


def _most_frequent(ids: Ints, n: int) -> Ints:
    """The n ids with the most entries, those first that are first in order, sorted."""
    known, counts = np.unique(ids, return_counts=True)
    return np.sort(known[np.argsort(-counts, kind="stable")[:n]])


def _complete(ratings: Ratings, users: Ints, films: Ints) -> Floats:
    """Stars in [0, 1], shape (S, A); what is missing is the film's mean, or that of all."""
    kept = np.isin(ratings.users, users) & np.isin(ratings.films, films)
    rows = np.searchsorted(users, ratings.users[kept])
    columns = np.searchsorted(films, ratings.films[kept])
    scaled = (ratings.stars[kept] - STARS[0]) / (STARS[1] - STARS[0])
    matrix = np.full((len(users), len(films)), np.nan)
    matrix[rows, columns] = scaled
    counts = np.bincount(columns, minlength=len(films))
    sums = np.bincount(columns, weights=scaled, minlength=len(films))
    overall = scaled.mean() if len(scaled) else 0.5
    means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    return np.where(np.isnan(matrix), means, matrix)
