"""Planning, scheduling, recording and resuming sweeps; the command line."""
