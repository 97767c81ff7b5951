"""Checks of finished runs: what MLflow recorded against files, code, configuration and predictions."""
