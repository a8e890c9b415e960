"""How each demo is shown: its data, computed by a study, as tables, findings and a figure.

Module `<name>` belongs to the command `toy_world.demo_<name>`, which holds its options and imports
it when it runs (see `toy_world.demo`).
"""
