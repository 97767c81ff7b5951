"""Kedro pipelines: one package each, ``nodes.py`` (thin functions) and ``pipeline.py`` (how they are joined)."""
