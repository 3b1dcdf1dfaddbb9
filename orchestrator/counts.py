"""How many trials of a sweep stand how: counted in the ledger, so that a hundred thousand of them need no plan to be read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from orchestrator.frozen import sweep_dir
from orchestrator.lease import holder_of
from results.ledger import Ledger
from results.storage import StorageLike
from results.trials_view import JUDGED

__all__ = ["count_statuses"]

_COUNTED = f"""
    WITH RECURSIVE standing AS MATERIALIZED (
        SELECT plans.sweep_id, trial_key, parent_keys, judged.status
        FROM plans JOIN ({JUDGED}) AS judged USING (trial_key)
        WHERE plans.sweep_id IN (SELECT unnest($sweeps::VARCHAR[]))
    ),
    begins_from AS (
        SELECT sweep_id, trial_key, unnest(parent_keys) AS parent FROM standing WHERE status <> 'completed'
    ),
    blocked AS (
        SELECT begins_from.sweep_id, begins_from.trial_key
        FROM begins_from JOIN standing ON begins_from.sweep_id = standing.sweep_id AND parent = standing.trial_key
        WHERE standing.status = 'failed'
        UNION
        SELECT begins_from.sweep_id, begins_from.trial_key
        FROM begins_from JOIN blocked ON begins_from.sweep_id = blocked.sweep_id AND parent = blocked.trial_key
    )
    SELECT sweep_id, CASE WHEN blocked.trial_key IS NULL THEN status ELSE 'blocked' END AS status, count(*) AS num_trials
    FROM standing LEFT JOIN blocked USING (sweep_id, trial_key) GROUP BY ALL
    UNION ALL
    SELECT sweep_id, 'all', max_trials FROM searches WHERE sweep_id IN (SELECT unnest($sweeps::VARCHAR[]))
"""


def count_statuses(storage: StorageLike, sweep_ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """By sweep, how many of its trials have which status; `blocked` as `orchestrator.standing.blocked` says it.

    Those that a search has yet to suggest are planned. A trial is counted in every sweep that has it.
    """
    ledger, sweeps = Ledger(storage, must_exist=False), list(sweep_ids)
    found: dict[str, Counter[str]] = {sweep_id: Counter() for sweep_id in sweeps}
    for row in ledger.sql(_COUNTED, {"sweeps": sweeps}).to_pylist():
        found[row["sweep_id"]][row["status"]] = row["num_trials"]
    now = time.time()
    for sweep_id, counts in found.items():
        most = counts.pop("all", 0)  # of a search, which may have suggested more than was asked for later
        counts["planned"] += max(0, most - counts.total())
        if counts["running"] and holder_of(sweep_dir(storage, sweep_id) / "driver", now) is None:  # nothing runs then
            counts["lost"] += counts.pop("running")
    return {sweep_id: dict(+counts) for sweep_id, counts in found.items()}
