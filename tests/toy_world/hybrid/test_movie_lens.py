"""Ratings are read in MovieLens's formats, and make a bandit that is linear exactly."""

import numpy as np
import pytest

from theory.errors import InvalidArgumentError, ResultsError
from toy_world.hybrid.movie_lens import Ratings, bandit_of, drawn_ratings, read_ratings

ROWS = [(196, 242, 3), (186, 302, 3), (22, 377, 1), (196, 302, 5)]
FORMATS = {
    "u.data": "\n".join(f"{u}\t{f}\t{s}\t881250949" for u, f, s in ROWS) + "\n",
    "ratings.dat": "\n".join(f"{u}::{f}::{s}::881250949" for u, f, s in ROWS),
    "ratings.csv": "userId,movieId,rating,timestamp\n"
    + "\n".join(f"{u},{f},{s}.0,881250949" for u, f, s in ROWS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_ratings(name, tmp_path):
    path = tmp_path / name
    path.write_text(FORMATS[name])
    found = read_ratings(path)
    assert list(zip(found.users, found.films, found.stars, strict=True)) == ROWS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\t2\n", "line 1: a line must be user, film, stars and time, got '1"),
        ("1\t2\t3\t4\none\t2\t3\t4\n", "line 2"),
        ("", "holds no rating"),
    ],
)
def test_what_is_no_file_of_ratings_is_refused_by_its_line(text, words, tmp_path):
    path = tmp_path / "u.data"
    path.write_text(text)
    with pytest.raises(ResultsError, match=words):
        read_ratings(path)
    with pytest.raises(ResultsError, match=r"cannot read .*; name a file of ratings"):
        read_ratings(tmp_path / "nothing")


@pytest.fixture
def ratings():
    return drawn_ratings(n_users=30, n_films=20, n_tastes=3, rng=np.random.default_rng(0))


def test_rewards_are_linear_in_features_of_length_at_most_1(ratings):
    bandit = bandit_of(ratings, n_users=12, n_films=8, dimension=4)
    assert bandit.features.shape == (12, 8, 4)
    np.testing.assert_allclose(bandit.features @ bandit.theta, bandit.mdp.rewards, atol=1e-12)
    assert np.linalg.norm(bandit.features, axis=-1).max() == pytest.approx(1)
    assert (bandit.mdp.rewards.min(), bandit.mdp.rewards.max()) == pytest.approx((0, 1))


def test_full_rank_rewards_are_the_stars_but_for_scale():
    stars = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 3.0]])
    users, films = np.indices(stars.shape).reshape(2, -1)
    every = Ratings(users=users, films=films, stars=stars.reshape(-1))
    bandit = bandit_of(every, n_users=2, n_films=3, dimension=3)
    np.testing.assert_allclose(bandit.mdp.rewards, (stars - 1) / 4, atol=1e-12)


def test_what_was_not_rated_holds_its_films_mean():
    every = Ratings(
        users=np.array([1, 1, 2, 3, 3]),
        films=np.array([7, 8, 7, 7, 8]),
        stars=np.array([1.0, 5.0, 3.0, 5.0, 3.0]),
    )
    bandit = bandit_of(every, n_users=3, n_films=2, dimension=3)
    expected = np.array([[0, 1], [0.5, (5 + 3 - 2) / 8], [1, 0.5]])
    np.testing.assert_allclose(bandit.mdp.rewards, expected, atol=1e-12)


def test_the_most_rated_are_kept():
    every = Ratings(
        users=np.array([1, 1, 2, 2, 3]),
        films=np.array([7, 8, 7, 8, 9]),
        stars=np.array([1.0, 5.0, 5.0, 1.0, 3.0]),
    )
    bandit = bandit_of(every, n_users=2, n_films=2, dimension=3)
    np.testing.assert_allclose(bandit.mdp.rewards, [[0, 1], [1, 0]], atol=1e-12)


def test_too_few_ratings_or_another_dimension_are_refused(ratings):
    with pytest.raises(InvalidArgumentError, match="40 users and 8 films are asked for, and 30"):
        bandit_of(ratings, n_users=40, n_films=8, dimension=3)
    with pytest.raises(InvalidArgumentError, match=r"dimension must lie in 2..9, got 10"):
        bandit_of(ratings, n_users=12, n_films=8, dimension=10)
