"""Makes zoos: from a plan to a finished folder, by whatever machines there are."""
