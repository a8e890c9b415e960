"""Every form of the actor is 0 at the start, of the rank it says, and learns, saves and loads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.agent.actor import actor_parameters, make_actor
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.base.hugging_face import OutputHead
from llm_experiment.config import ActorForm
from tests.llm_experiment.fakes.small_world import small_config, small_world
from theory.errors import InvalidArgumentError

N_INPUTS, N_TOKENS, WIDTH, RANK = 10, 30, 4, 3


def a_head():
    weight = torch.randn(N_TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    return OutputHead(weight=weight, bias=None)


def actor_of(form, *, perturbed=False):
    torch.manual_seed(0)
    actor = make_actor(form, n_inputs=N_INPUTS, n_tokens=N_TOKENS, rank=RANK, head=a_head())
    if perturbed:
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter.normal_()
    return actor


@pytest.mark.parametrize("form", ActorForm)
def test_a_new_actor_gives_every_token_and_the_budget_neuron_0(form):
    outputs = actor_of(form)(torch.randn(5, N_INPUTS))
    assert outputs.shape == (5, N_TOKENS + 1)
    assert not outputs.any()


@pytest.mark.parametrize("form", ActorForm)
def test_parameters_are_as_many_as_counted(form):
    counted = actor_parameters(form, n_inputs=N_INPUTS, n_tokens=N_TOKENS, rank=RANK, width=WIDTH)
    assert sum(p.numel() for p in actor_of(form).parameters()) == counted


@pytest.mark.parametrize(
    ("form", "rank"),
    [(ActorForm.LINEAR, N_INPUTS), (ActorForm.LOW_RANK, RANK), (ActorForm.THROUGH_HEAD, WIDTH)],
)
def test_residuals_are_affine_and_span_what_the_rank_says(form, rank):
    actor = actor_of(form, perturbed=True)
    with torch.no_grad():
        at_0 = actor(torch.zeros(1, N_INPUTS))
        residuals = (actor(torch.eye(N_INPUTS)) - at_0)[:, :-1]
        seen = torch.randn(50, N_INPUTS)
        np.testing.assert_allclose(
            (actor(seen) - at_0)[:, :-1], seen @ residuals, rtol=1e-4, atol=1e-4
        )
    assert np.linalg.matrix_rank(residuals.numpy(), tol=1e-4) == rank


def test_through_the_head_the_proposal_is_that_of_a_hidden_state_that_has_moved():
    actor, head = actor_of(ActorForm.THROUGH_HEAD, perturbed=True), a_head()
    features, inputs = torch.randn(6, 7), torch.randn(6, N_INPUTS)
    with torch.no_grad():
        moved = features.clone()
        moved[:, -WIDTH:] += actor.shift(inputs)
        proposal = (head(features) + actor(inputs)[:, :-1]).log_softmax(dim=-1)
        np.testing.assert_allclose(proposal, head(moved), atol=1e-4)


def test_through_the_head_needs_one():
    config = replace(small_config(), actor=ActorForm.THROUGH_HEAD)
    with pytest.raises(InvalidArgumentError, match=r"through-head needs .* choose actor low-rank"):
        LockstepPPO(small_world(), config)


def test_an_agent_of_low_rank_learns_within_its_budget_and_is_restored(tmp_path):
    world = small_world()
    config = replace(small_config(), actor=ActorForm.LOW_RANK, actor_rank=2)
    agent = LockstepPPO(world, config).finish()
    assert agent.policy.actor.outer.weight.abs().max() > 0
    assert max(r.spent_nats_max for r in agent.records) <= config.constraint.budget_nats + 1e-9
    agent.save(tmp_path / "agent.safetensors")
    again = LockstepPPO.load(tmp_path / "agent.safetensors", world=world)
    seen = agent.last_rollout.kept_observations
    with torch.no_grad():
        np.testing.assert_array_equal(again.act_on(seen).log_probs, agent.act_on(seen).log_probs)
