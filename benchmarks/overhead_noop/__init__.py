"""A trainable that trains nothing, which `overhead.py` adds to a copy of the packages as CONTRIBUTING.md says."""
