"""Small observation processes, their trusted demonstrators, and what an agent is paid for."""
