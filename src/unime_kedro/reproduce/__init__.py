"""Reproducing results: ``dvc.yaml`` made from pipelines and catalog, and what DVC and MLflow know of each other."""
