"""The smallest example in which an agent drives the demonstrator out of the top set."""

import numpy as np

from theory.bayes_mixture import Update
from theory.log_sum import LogSum
from theory.pessimism import pessimistic_imitator
from toy_world.studies.posterior_manipulation import manipulation_rows, posterior_manipulation


def test_the_agent_drives_the_demonstrator_out_if_its_actions_update_the_posterior():
    example = posterior_manipulation()
    assert example.kl_to_imitator(Update.ALL) == LogSum.log(10)
    assert example.kl_to_imitator(Update.DEMONSTRATOR).is_infinite
    assert example.kl_to_demonstrator().is_infinite


def test_one_step_is_not_enough_to_drive_the_demonstrator_out():
    example = posterior_manipulation()
    first = tuple(level[:, :1] for level in example.models[:1])
    by_rule = [
        pessimistic_imitator(example.weights, first, alpha=example.alpha, update=update)
        for update in Update
    ]
    np.testing.assert_array_equal(*(tables[0] for tables in by_rule))


def test_only_one_of_the_update_rules_keeps_the_guarantee():
    rows = {row.update: row for row in manipulation_rows()}
    assert rows[Update.DEMONSTRATOR].holds
    assert not rows[Update.ALL].holds
