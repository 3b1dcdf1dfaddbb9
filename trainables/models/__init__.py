"""Encoders, expert layers and the outputs that the question-answering models share."""
