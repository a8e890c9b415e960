"""`python -m tests.theory.check_annotations`: the annotations of `theory` hold in every call here.

jaxtyping's import hook checks each function and dataclass of `theory` while the library's own
examples run, and then calls with batches, broadcasting, both libraries and both precisions. It
needs a process of its own: under the hook an argument of the wrong shape meets the hook's error
before the library's, which other tests ask for.
"""

import doctest
import importlib
import importlib.util
import pkgutil
import sys

import numpy as np
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, install_import_hook

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The hook's checker: beartype, with type checkers' rule that an int will do for a float."""


def log_rows(rng, *shape):
    logits = rng.normal(size=shape)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def run_examples():
    """The number of examples that ran and failed."""
    theory = importlib.import_module("theory")
    names = [
        "theory",
        *(f"theory.{module.name}" for module in pkgutil.iter_modules(theory.__path__)),
    ]
    results = [doctest.testmod(importlib.import_module(name)) for name in names]
    return sum(result.attempted for result in results), sum(result.failed for result in results)


def call_with_batches(library, precision, *, gradients):
    """Every function of log-probabilities, rows of shape (3, 1, 4) against (2, 4)."""
    import theory

    rng = np.random.default_rng(0)

    def array(values):
        made = library.asarray(values, dtype=getattr(library, precision))
        return made.requires_grad_() if gradients else made

    log_p, log_q = array(log_rows(rng, 3, 1, 4)), array(log_rows(rng, 2, 4))
    for divergence in (theory.kl_nats, theory.tvd, theory.chi_squared):
        assert divergence(log_p, log_q).shape == (3, 2)
    for order in (0, 0.3, 1, 2, np.inf):
        assert theory.renyi_nats(log_p, log_q, order=order).shape == (3, 2)
    assert theory.log_missing_mass(log_p).shape == (3, 1)
    assert theory.with_missing_outcome(log_p).shape == (3, 1, 5)
    assert theory.completed(log_p - 1, log_q).shape == (3, 2, 4)
    assert theory.renormalised(log_p - 1, limit=0.9).shape == (3, 1, 4)
    missing, budgets = array([[0.1], [0.2]]), array([0.1, 0.2, 0.3])
    assert theory.acting_cost_nats(missing).shape == (2, 1)
    assert theory.may_act(missing, budgets).shape == (2, 3)
    for project in (theory.fixed_kl_mixture, theory.geometric_projection):
        for k, share in ((0.1, 1.0), (array([0.0, 0.1]), 0.5), (0.1, array([[0.3], [0.5], [1.0]]))):
            found = project(log_p, log_q, k, share=share)
            assert found.log_x.shape == (3, 2, 4)
    for accounting in theory.Accounting:
        ledger = theory.open_ledger(array([[1.0, 2.0]]), accounting=accounting)
        ledger = ledger.charge(kl_nats=array([[0.1, 0.2]]), log_ratio_nats=array(0.1))
        assert ledger.leak_nats.shape == (1, 2)


def call_with_many_models():
    """Posteriors of shape (2, 3) over 3 models with 4 symbols."""
    import theory

    log_w = theory.normalised_log_weights(np.zeros((2, 3)))
    log_p = log_rows(np.random.default_rng(0), 2, 3, 4)
    assert theory.predictive_log_probs(log_w, log_p).shape == (2, 4)
    assert theory.update_log_weights(log_w, log_p[..., 0]).shape == (2, 3)
    assert theory.top_set(np.exp(log_w), alpha=0.25).shape == (2, 3)


def annotated():
    """The modules of `theory` whose annotations are checked: not those that are machine code."""
    places = importlib.util.find_spec("theory").submodule_search_locations
    modules = {f"theory.{module.name}" for module in pkgutil.iter_modules(places)}
    return sorted(modules - {"theory.compiled", "theory.kl_kernel"})


def refuses_a_wrong_shape():
    """Whether the hook is at work."""
    import theory

    try:
        theory.action_values(np.ones((1, 2, 2)) / 2, np.ones((2, 2)))
    except TypeCheckError:
        return True
    return False


def main():
    """Exit with 1 and a message if anything fails."""
    with install_import_hook(annotated(), "__main__.check_types"):
        attempted, failed = run_examples()
        call_with_batches(np, "float64", gradients=False)
        call_with_batches(np, "float32", gradients=False)
        call_with_batches(torch, "float32", gradients=False)
        call_with_batches(torch, "float64", gradients=True)
        call_with_many_models()
    if failed or not refuses_a_wrong_shape():
        sys.exit(f"{failed} of {attempted} examples failed, or the hook was not at work")
    print(f"{attempted} examples")


if __name__ == "__main__":
    main()
