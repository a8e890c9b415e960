"""A hard KL budget on any two causal language models, in `generate` and in other people's trainers.

`llm_experiment.guard.spending` is the law, `llm_experiment.guard.generate` imposes it on `generate`
of transformers, and `llm_experiment.guard.model` is a model that has it built in.
"""
