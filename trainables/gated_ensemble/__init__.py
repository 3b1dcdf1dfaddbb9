"""A gate over frozen experts, one for each domain (papers: document B)."""
