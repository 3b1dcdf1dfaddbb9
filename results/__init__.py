"""The Parquet ledger: its schema, writing and reading, SQL, tables and figures. Knows neither torch nor Ray nor Optuna."""
