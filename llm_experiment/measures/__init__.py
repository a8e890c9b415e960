"""What is measured of an agent, and the tables that say it."""
