"""One MLflow run per ``kedro run``: parameters, metrics, provenance, plots, and how the run ended.

Nothing here imports ``mlflow`` until a run is tracked; with ``UNIME_TRACKING=off`` it is never imported.
"""
