"""From files or hub rows to memory-mapped windows, mixtures, answers and scores."""
