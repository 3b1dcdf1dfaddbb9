"""The stored tables as relations of one DuckDB connection: views over rows in memory and over files where they lie.

Compacted files on a local disk are read by DuckDB itself. Over 10 million reports that takes a tenth to a half of the time
that DuckDB over a pyarrow dataset takes, and an eighth of the memory: it reads the columns and row groups that a join asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import groupby

import duckdb
import pyarrow as pa

from results.compacted import PART_COLUMN
from results.scan import CompactedFile, StoredTable
from results.schema import TABLES, arrow_schema
from results.sql_text import sql_text, sql_type
from results.storage import Storage
from results.superseded import SUPERSEDED, Superseded, current_rows
from results.views import VIEWS, needed_tables, raw_name

__all__ = ["create_relations", "create_views", "local_files"]


def local_files(storage: Storage, stored: Iterable[StoredTable]) -> list[str]:
    """The paths that DuckDB itself has to be allowed to read."""
    return [file.path for table in stored for file in table.files] if storage.is_local else []


def create_relations(connection: duckdb.DuckDBPyConnection, storage: Storage, stored: Mapping[str, StoredTable]) -> None:
    """Every table under its raw name; without rows where `stored` lacks it."""
    for table in TABLES:
        if table not in stored:
            connection.register(raw_name(table), pa.Table.from_batches([], arrow_schema(table).remove_metadata()))
            continue
        queries = [_uncompacted(connection, storage, stored[table])]
        queries += [query for _, query in _file_queries(connection, storage, stored[table], frozenset())]
        connection.execute(f"CREATE VIEW {raw_name(table)} AS {' UNION ALL '.join(queries)}")


def create_views(
    connection: duckdb.DuckDBPyConnection,
    storage: Storage,
    stored: Mapping[str, StoredTable],
    find: Callable[[str], Superseded],
) -> None:
    """The views that users query, over what `create_relations` made; `find` tells what does not count of a table.

    `trials` and `spending` take DuckDB longer than the rest: they are left out where `stored` lacks what they read, unless it
    is empty, as for a query of the catalogue.
    """
    for table in SUPERSEDED:
        if table not in stored:
            connection.execute(f"CREATE VIEW {table} AS FROM {raw_name(table)}")
            continue
        found = find(table)
        connection.register(f"_limits_{table}", found.limits)
        connection.register(f"_compared_{table}", found.compared)
        own = f"FROM _uncompacted_{table}"
        untouched, limited = ([], [own]) if found.in_own else ([own], [])
        for is_limited, query in _file_queries(connection, storage, stored[table], found.in_files):
            (limited if is_limited else untouched).append(query)
        connection.execute(f"CREATE VIEW {table} AS {current_rows(table, found, untouched, limited)}")
    for name, query in VIEWS.items():
        if not stored or all(table in stored for table in needed_tables({name})):
            connection.execute(f"CREATE VIEW {name} AS {query}")


def _uncompacted(connection: duckdb.DuckDBPyConnection, storage: Storage, stored: StoredTable) -> str:
    """A query of the rows of parts that are files of their own."""
    name = f"_uncompacted_{stored.table}"
    connection.register(name, _with_streamed(storage, stored))
    return f"FROM {name}"


def _with_streamed(storage: Storage, stored: StoredTable) -> object:
    if not stored.streamed:
        return stored.own
    # Importing it costs a quarter of a second, which most queries need not pay.
    import pyarrow.dataset as ds

    return ds.UnionDataset(stored.own.schema, [ds.dataset(stored.own), _dataset(storage, stored.streamed, stored.own.schema)])


def _file_queries(
    connection: duckdb.DuckDBPyConnection, storage: Storage, stored: StoredTable, limited_files: Collection[str]
) -> list[tuple[bool, str]]:
    """Queries of the rows in compacted files that no part hides, each of files read alike, and whether those are limited."""

    def reading(file: CompactedFile) -> tuple[bool, bool, list[str]]:
        return file.name in limited_files, file.name in stored.hidden_in, sorted(file.columns)

    queries = []
    for (limited, has_hidden, columns), group in groupby(sorted(stored.files, key=reading), key=reading):
        source = _files_source(connection, storage, stored.table, [file.path for file in group])
        present = [
            column.name if column.name in columns else f"NULL::{sql_type(column.type)} AS {column.name}"
            for column in TABLES[stored.table]
        ]
        where = ""
        if has_hidden:
            connection.register(f"_hidden_{stored.table}", pa.table({"part": stored.hidden}))
            where = f" WHERE {PART_COLUMN} NOT IN (SELECT part FROM _hidden_{stored.table})"
        queries.append((limited, f"SELECT {', '.join(present)} FROM {source}{where}"))
    return queries


def _files_source(connection: duckdb.DuckDBPyConnection, storage: Storage, table: str, paths: list[str]) -> str:
    if storage.is_local:
        return f"read_parquet([{', '.join(sql_text(path) for path in paths)}])"
    with storage.filesystem.open_input_file(paths[0]) as file:
        import pyarrow.parquet as pq

        schema = pq.read_schema(file).remove_metadata()
    name = f"_files_{table}_{abs(hash(tuple(paths)))}"
    connection.register(name, _dataset(storage, tuple(paths), schema))
    return name


def _dataset(storage: Storage, paths: Iterable[str], schema: pa.Schema) -> object:
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    fragments = [parquet.make_fragment(path, filesystem=storage.filesystem) for path in paths]
    return ds.FileSystemDataset(fragments, schema, parquet, storage.filesystem)
