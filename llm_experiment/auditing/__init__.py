"""What a budget buys, and where a policy spent it: any two causal language models, any prompts.

Of the base model alone: prices of behaviours (`behaviours`, `scripts`, `patterns`) over prompts
(`prompts`, `conversation`), and what a budget makes of them (`budgets`). Of a policy against it:
the KL of whole answers (`answers`, `estimators`), exact at every token. `stages` puts both
together a batch of prompts at a time, `parts` keeps what is finished, `summary` says what it
amounts to, and `tables`, `figure`, `page` show it.
"""
