"""Ten questions that people ask a ledger, in words and as SQL."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QUESTIONS", "Question"]


@dataclass(frozen=True)
class Question:
    """`$trial`, `$other` and `$example` in the SQL are those of `ledger_data.Asked`."""

    name: str
    words: str
    sql: str


QUESTIONS = (
    Question(
        "status",
        "How many trials stand how?",
        "SELECT status, count(*) AS trials FROM trials GROUP BY ALL ORDER BY ALL",
    ),
    Question(
        "best",
        "Which ten trials came to the lowest validation loss?",
        """SELECT trial_key, architecture, squad_share, min(val_qa_loss) AS loss FROM reports JOIN trials USING (trial_key)
           GROUP BY ALL ORDER BY loss LIMIT 10""",
    ),
    Question(
        "curve",
        "How did one trial's validation loss go?",
        "SELECT step, val_qa_loss FROM reports WHERE trial_key = $trial ORDER BY step",
    ),
    Question(
        "mean curve",
        "How does the validation loss go on average, by architecture and epoch?",
        """SELECT architecture, ceil(epoch) AS epoch, avg(val_qa_loss) AS loss FROM reports JOIN trials USING (trial_key)
           GROUP BY ALL ORDER BY ALL""",
    ),
    Question(
        "scores",
        "What is the exact match on the test split, by architecture, share, order and domain?",
        """SELECT architecture, squad_share, data_order, domain, avg(em) AS em
           FROM evaluations JOIN trials USING (trial_key) WHERE split = 'test' GROUP BY ALL ORDER BY ALL""",
    ),
    Question(
        "finished",
        "How many trials were completed in each hour?",
        """SELECT date_trunc('hour', finished_at) AS hour, count(*) AS trials FROM trials
           WHERE status = 'completed' GROUP BY ALL ORDER BY ALL""",
    ),
    Question(
        "GPU-hours",
        "How many GPU-hours went into trials of each outcome?",
        "SELECT status, sum(gpu_seconds) / 3600 AS gpu_hours FROM trials GROUP BY ALL ORDER BY ALL",
    ),
    Question(
        "failures",
        "Which errors made trials fail, and how many?",
        """SELECT error_signature, count(*) AS trials FROM trials WHERE status = 'failed' GROUP BY ALL ORDER BY ALL""",
    ),
    Question(
        "experts",
        "How did one trial load its experts when it was evaluated last?",
        """SELECT domain, expert, load_share FROM routing
           WHERE trial_key = $trial AND step = (SELECT max(step) FROM routing WHERE trial_key = $trial) ORDER BY ALL""",
    ),
    Question(
        "predictions",
        "What do two models answer to one question?",
        """SELECT trial_key, question, prediction, em FROM predictions
           WHERE example_id = $example AND trial_key IN ($trial, $other) ORDER BY ALL""",
    ),
)
