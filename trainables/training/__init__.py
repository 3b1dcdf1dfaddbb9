"""The loop, the evaluation and the checkpoints that all trainables share."""
