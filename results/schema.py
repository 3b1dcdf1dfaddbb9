"""The ledger's tables. A column is one line here: name, type, unit or meaning.

Stored tables are written as parts (see `results.parts`); `trials` as users query it is a view over `plans`, `events` and
`attempts` (see `results.ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pyarrow as pa

__all__ = ["SCHEMA_VERSION", "TABLES", "Column", "arrow_schema"]

SCHEMA_VERSION = 7
"""Raised with every change to the tables. Parts of all earlier versions are read; a column that they lack is null.

2: `runs`; failure_class in events and attempts; run_id, error_signature, stop_reason, micro_batches, checkpoint in attempts.
3: `searches` and `decisions`; params_active in attempts.
4: compacted files (see `results.compacted`); the tables are those of 3.
5: group_id in predictions.
6: node_id in attempts; probed_device, probed_bytes and probed_total_bytes in runs.
7: gate_weights in predictions; domain_examples in plans.
"""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type and what it holds, with unit."""

    name: str
    type: pa.DataType
    about: str


_TEXT = pa.string()
_INT = pa.int64()
_REAL = pa.float64()
_TIME = pa.timestamp("us", tz="UTC")

_KEY = Column("trial_key", _TEXT, "first 16 hex digits of the SHA-256 of the trial's identity")
_ATTEMPT = Column("attempt", _INT, "1 for the first try at the trial")
_FAILURE_CLASS = Column(
    "failure_class", _TEXT, "preempted | lost | oom | diverged | data | code | timeout | storage; null where it did not fail"
)

TABLES: dict[str, tuple[Column, ...]] = {
    "plans": (
        _KEY,
        Column("sweep_id", _TEXT, "sweep that planned the trial"),
        Column("sweep_kind", _TEXT, "grid | search"),
        Column("preset", _TEXT, "name or path of the preset"),
        Column("planned_at", _TIME, "when the sweep was planned"),
        Column("trainable", _TEXT, "trainable's name and variant, e.g. exbert:tuned"),
        Column("trainable_version", _INT, "the trainable's VERSION"),
        Column("architecture", _TEXT, "distilbert | exbert | ..."),
        Column("variant", _TEXT, "named variant of the trainable's defaults; empty for the defaults"),
        Column("seed", _INT, "the trial's seed"),
        Column("config", _TEXT, "fully resolved configuration, canonical JSON"),
        Column("data", _TEXT, "encoder and domains with their locations, JSON"),
        Column("data_fingerprint", _TEXT, "SHA-256 over the content of encoder and data files or their pinned revisions"),
        Column("domains", pa.list_(_TEXT), "domain names in mixture order"),
        Column("squad_share", _INT, "percent of the mixture from the first domain, or first group of domains"),
        Column("domain_examples", pa.list_(_INT), "examples of each of the domains in the mixture"),
        Column("data_order", _TEXT, "concatenated | shuffled"),
        Column("mixture_size", _INT, "training examples"),
        Column("n_layers", _INT, "transformer blocks kept; null: the encoder's"),
        Column("num_experts", _INT, "experts per mixture-of-experts layer; null for dense models"),
        Column("learning_rate", _REAL, "peak learning rate"),
        Column("dropout_placement", _TEXT, "none | before | after | both the expert layer; null for dense models"),
        Column("moe_dropout", _REAL, "dropout rate beside the expert layer; null for dense models"),
        Column("epochs", _INT, "planned passes over the mixture"),
        Column("batch_size", _INT, "windows per optimiser step"),
        Column("stage", _INT, "1 for trials without parents"),
        Column("parent_keys", pa.list_(_TEXT), "trials whose final checkpoints are inputs"),
    ),
    "events": (
        _KEY,
        Column("sweep_id", _TEXT, "sweep that was running"),
        _ATTEMPT,
        Column("status", _TEXT, "planned | running | completed | stopped | failed | lost"),
        Column("happened_at", _TIME, "when the driver saw it"),
        Column("host", _TEXT, "driver's host"),
        Column("reason", _TEXT, "why the trial stopped, was lost or is tried again"),
        _FAILURE_CLASS,
        Column("error_type", _TEXT, "exception class"),
        Column("error", _TEXT, "traceback"),
    ),
    "attempts": (
        _KEY,
        _ATTEMPT,
        Column("sweep_id", _TEXT, "sweep that ran the attempt"),
        Column("run_id", _TEXT, "driver run that started the attempt"),
        Column("status", _TEXT, "running | completed | stopped | failed | lost, as it was written last"),
        Column("stop_reason", _TEXT, "why the attempt was stopped; null where it was not"),
        Column("resumed_step", _INT, "step of the checkpoint the attempt began from; 0: from the start"),
        Column("params_total", _INT, "parameters of the model"),
        Column("params_active", _INT, "parameters that one token's pass uses: of expert layers the chosen experts alone"),
        Column("params_trainable", _INT, "parameters that training changes"),
        Column("started_at", _TIME, "when the worker took the trial"),
        Column("finished_at", _TIME, "when the worker was done with it; null while running"),
        Column("train_seconds", _REAL, "wall seconds inside the trainable"),
        Column("startup_seconds", _REAL, "wall seconds from the driver's start of the attempt until the trainable began"),
        Column("gpu_seconds", _REAL, "GPUs held x wall seconds"),
        Column("cpu_seconds", _REAL, "CPU seconds of the worker process spent on the attempt"),
        Column("peak_memory_bytes", _INT, "largest resident size of the worker process so far"),
        Column("host", _TEXT, "worker's host name"),
        Column("node_id", _TEXT, "Ray's id of the worker's node; null without Ray"),
        Column("device", _TEXT, "cpu, or the GPU's name"),
        Column("num_threads", _INT, "torch threads"),
        Column("micro_batches", _INT, "parts in which each batch went through the model"),
        Column("checkpoint", _TEXT, "newest checkpoint or final weights, below the storage; null where none is kept"),
        Column("code_hash", _TEXT, "SHA-256 over the Python sources of the trainables"),
        Column("git_commit", _TEXT, "commit of the checkout, with '+dirty' when it had changes; null outside one"),
        Column("versions", _TEXT, "versions of Python and the packages that matter, JSON"),
        _FAILURE_CLASS,
        Column("error_type", _TEXT, "exception class of a failed attempt"),
        Column("error_signature", _TEXT, "short hash that equal errors have in common"),
        Column("error", _TEXT, "traceback of a failed attempt"),
    ),
    "runs": (
        Column("run_id", _TEXT, "one driver process's run of a sweep"),
        Column("sweep_id", _TEXT, "sweep that was run"),
        Column("started_at", _TIME, "when the driver began"),
        Column("updated_at", _TIME, "when the driver last said that it goes on"),
        Column("finished_at", _TIME, "when the driver was done; null while it runs, and where it was killed"),
        Column("wall_seconds", _REAL, "seconds from started_at to updated_at on the driver's monotonic clock"),
        Column("slots", _INT, "attempts that can run at the same time; on a cluster that grows, the most so far"),
        Column("gpus_per_trial", _REAL, "GPUs that a slot holds; 0 on CPUs"),
        Column("probed_device", _TEXT, "GPU on which `trials_per_gpu: auto` was measured; null where it was not"),
        Column("probed_bytes", _INT, "most memory of that GPU that the hungriest trial took, headroom not counted"),
        Column("probed_total_bytes", _INT, "memory of that GPU"),
        Column("host", _TEXT, "driver's host"),
        Column("pid", _INT, "driver's process id"),
        Column("ended", _TEXT, "finished | budget | interrupted | preempted | same error | error; null while it runs"),
    ),
    "searches": (
        Column("sweep_id", _TEXT, "the search"),
        Column("strategy", _TEXT, "asha | narrowing"),
        Column("trainable", _TEXT, "trainable whose settings are searched"),
        Column("space", _TEXT, "name, dimensions and fixed settings of the space, JSON; of a narrowing, its stages"),
        Column("settings", _TEXT, "sampler, seed, grace, eta, variant and the like, JSON"),
        Column("objectives", pa.list_(_TEXT), "what is minimised, val_qa_loss first"),
        Column("rungs", pa.list_(_REAL), "epochs at which trials are judged; empty without early stopping"),
        Column("max_epochs", _INT, "epochs of a trial that is never stopped"),
        Column("max_trials", _INT, "trials that the search may try"),
        Column("created_at", _TIME, "when the search was planned"),
    ),
    "decisions": (
        Column("sweep_id", _TEXT, "the search"),
        Column("sequence", _INT, "order in which the driver decided, from 0; a resumed search goes on counting"),
        Column("run_id", _TEXT, "driver run that decided"),
        Column("happened_at", _TIME, "when"),
        Column("kind", _TEXT, "warm | suggested | judged | promoted | ended"),
        Column("number", _INT, "the trial's number in the search, from 0; below 0 for trials that warmed it up"),
        Column("trial_key", _TEXT, "the trial"),
        Column("stage", _TEXT, "stage of a narrowing; null in other searches"),
        Column("parent_key", _TEXT, "winner of the stage before; null in the first stage and in other searches"),
        Column("parameters", _TEXT, "of a suggested or warm trial: its point of the space, JSON by dotted name"),
        Column("epoch", _REAL, "of a judged trial: epochs trained"),
        Column("value", _REAL, "of a judged, warm or completed trial: its val_qa_loss, nats; null where it is not finite"),
        Column("action", _TEXT, "of a judged trial: go on | stop | pause | finished; of an ended one: completed | failed"),
        Column("rung", _REAL, "of a judged trial: epochs of the rung that it was judged at; null between rungs"),
        Column("reason", _TEXT, "of a stopped trial: why; of an ended one: what is special about it"),
    ),
    "reports": (
        _KEY,
        _ATTEMPT,
        Column("step", _INT, "optimiser steps done"),
        Column("epoch", _REAL, "passes over the mixture"),
        Column("samples_seen", _INT, "training windows, repeats counted"),
        Column("wall_seconds", _REAL, "wall seconds inside the trainable in this attempt so far"),
        Column("train_qa_loss", _REAL, "mean since the last report of (CE_start + CE_end) / 2, nats"),
        Column("train_aux_loss", _REAL, "mean since the last report of the weighted auxiliary losses; null for dense models"),
        Column("balance_loss", _REAL, "unweighted load-balancing loss, mean since the last report; null for dense models"),
        Column("router_z_loss", _REAL, "unweighted router z-loss, mean since the last report; null for dense models"),
        Column("val_qa_loss", _REAL, "validation loss in the mixture's ratio of domains, nats; null where not validated"),
        Column("learning_rate", _REAL, "rate of the last step"),
        Column("extra", pa.map_(_TEXT, _REAL), "further declared metrics"),
    ),
    "evaluations": (
        _KEY,
        _ATTEMPT,
        Column("step", _INT, "optimiser steps done"),
        Column("split", _TEXT, "val | test"),
        Column("domain", _TEXT, "domain evaluated on"),
        Column("examples", _INT, "examples scored"),
        Column("qa_loss", _REAL, "mean loss over windows, nats"),
        Column("em", _REAL, "exact match, percent"),
        Column("f1", _REAL, "token F1, percent"),
        Column("em_raw", _REAL, "exact match without normalisation, percent"),
        Column("contains_gold", _REAL, "answers that contain a gold answer as whole words, percent"),
        Column("mean_answer_tokens", _REAL, "whitespace tokens per answer"),
    ),
    "predictions": (
        _KEY,
        _ATTEMPT,
        Column("domain", _TEXT, "domain of the test example"),
        Column("example_id", _TEXT, "id of the test example"),
        Column("group_id", _TEXT, "the same for examples that the split keeps together, such as questions about one context"),
        Column("question", _TEXT, "the question"),
        Column("gold", pa.list_(_TEXT), "accepted answers"),
        Column("prediction", _TEXT, "the model's answer"),
        Column("score", _REAL, "sum of the answer's start and end logits"),
        Column("em", _REAL, "1 where it matches a gold answer exactly after normalisation, else 0"),
        Column("f1", _REAL, "token F1 against the best gold answer, 0 to 1"),
        Column(
            "gate_weights", pa.list_(_REAL), "of an ensemble: weight of each expert, in the order of the trial's parent_keys"
        ),
    ),
    "routing": (
        _KEY,
        _ATTEMPT,
        Column("step", _INT, "optimiser steps done"),
        Column("split", _TEXT, "val | test"),
        Column("domain", _TEXT, "domain routed"),
        Column("layer", _INT, "expert layer, 0-based in the order of the forward pass"),
        Column("expert", _INT, "expert, 0-based"),
        Column("load_share", _REAL, "share of the layer's assignments before capacity, sums to 1 over experts"),
        Column("mean_gate", _REAL, "mean gate probability over real tokens, sums to 1 over experts"),
        Column("dropped_share", _REAL, "share of the expert's assignments that found no room"),
    ),
}


@cache
def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of `table`, each field's meaning and the schema version in the metadata."""
    fields = [pa.field(c.name, c.type, metadata={"about": c.about}) for c in TABLES[table]]
    return pa.schema(fields, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})
