"""Data, models and training. Knows neither Ray nor Optuna nor the ledger."""
