"""The environment that Ray must find when it is imported. Imports no Ray itself."""

from __future__ import annotations

import os
import secrets
from functools import cache

__all__ = ["set_ray_environment"]

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they double the time to a first result; the ledger has it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: KeyboardInterrupt
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # seconds between snapshots of Tune's state, which nothing reads
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they go to the ledger, and to the user in our words
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # glibc, in the workers: keep freed blocks for the next step, at most 64 MiB at the heap's end, instead of having the kernel
    # give and zero their pages anew at each step, which took a quarter of it
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}


def set_ray_environment(address: str | None) -> None:
    """Sets what Ray reads once. Without an `address` a local Ray will start: it gets a token that only this process knows.

    Ray listens on every interface and runs code for whoever reaches it. Left to itself `ray.init` writes a token to the home
    directory, which silently changes how that user's later clusters authenticate; a token in the environment does not.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not address:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = _token()


@cache
def _token() -> str:
    """The same for all sessions of this process: Ray reads it once."""
    return secrets.token_hex(32)
