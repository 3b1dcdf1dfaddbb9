"""Which rows count after retries: found from the attempts, and the same as by comparing every row with every other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from results.compact import compact
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.trials_view import COUNTING

KEYS = ("0123456789abcdef", "fedcba9876543210")

# A row counts up to the step that every later attempt began from, unless it was begun after the trial was complete; where two
# attempts have a row of one step, the later one's counts.
BY_COMPARING_ROWS = f"""
    SELECT rows.trial_key, rows.attempt, rows.step FROM all_reports AS rows
    ASOF LEFT JOIN (
        SELECT trial_key, attempt, min(coalesce(resumed_step, 0)) OVER (
            PARTITION BY trial_key ORDER BY attempt ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        ) AS keep_until
        FROM ({COUNTING})
    ) AS later ON rows.trial_key = later.trial_key AND rows.attempt < later.attempt
    WHERE (later.keep_until IS NULL OR rows.step <= later.keep_until)
      AND NOT EXISTS (
          FROM attempts AS done
          WHERE done.trial_key = rows.trial_key AND done.status = 'completed' AND done.attempt < rows.attempt
      )
    QUALIFY row_number() OVER (PARTITION BY rows.trial_key, rows.step ORDER BY rows.attempt DESC) = 1
"""
NEWEST_ATTEMPT = """
    WITH newest AS (
        SELECT trial_key, coalesce(min(attempt) FILTER (status = 'completed'), max(attempt)) AS attempt
        FROM (
            SELECT trial_key, attempt, NULL AS status FROM all_predictions UNION SELECT trial_key, attempt, status FROM attempts
        )
        GROUP BY trial_key
    )
    SELECT rows.trial_key, rows.attempt FROM all_predictions AS rows SEMI JOIN newest USING (trial_key, attempt)
"""

_ATTEMPTS = st.fixed_dictionaries(
    {
        "key": st.sampled_from(KEYS),
        "attempt": st.integers(1, 3),
        "is_recorded": st.booleans() | st.just(True),
        "status": st.sampled_from(["lost", "running", "completed", "failed"]),
        "resumed_step": st.none() | st.integers(0, 4),
        "steps": st.lists(st.none() | st.integers(0, 6), max_size=5),
        "is_compacted": st.booleans(),
    }
)


def _write(storage: Path, attempt: dict[str, Any]) -> None:
    ids, name = {"trial_key": attempt["key"], "attempt": attempt["attempt"]}, attempt_part(attempt["key"], attempt["attempt"])
    if attempt["is_recorded"]:
        row = {**ids, "status": attempt["status"], "resumed_step": attempt["resumed_step"]}
        write_part(storage, "attempts", name, [row])
    write_part(storage, "reports", name, [{**ids, "step": step} for step in attempt["steps"]])
    write_part(storage, "predictions", name, [ids])


def _counted(ledger: Ledger, query: str) -> list[str]:
    return sorted(map(repr, ledger.sql(query).to_pylist()))


@settings(max_examples=8, deadline=None)
@given(attempts=st.lists(_ATTEMPTS, max_size=5, unique_by=lambda attempt: (attempt["key"], attempt["attempt"])))
def test_rows_that_count_are_those_that_comparing_all_rows_leaves(attempts: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        for attempt in attempts:
            if attempt["is_compacted"]:
                _write(storage, attempt)
        if any(attempt["is_compacted"] for attempt in attempts):
            compact(storage)
        for attempt in attempts:
            if not attempt["is_compacted"]:
                _write(storage, attempt)
        ledger = Ledger(storage, must_exist=False)
        # The tables that the references read are named in them.
        assert _counted(ledger, "SELECT trial_key, attempt, step FROM reports") == _counted(ledger, BY_COMPARING_ROWS)
        assert _counted(ledger, "SELECT trial_key, attempt FROM predictions") == _counted(ledger, NEWEST_ATTEMPT)
