"""Multimodal models: one adapter per backbone family, prompts, image processing, embedding, Yes/No judging.

Knows nothing of Kedro, MLflow or DVC; runs wherever torch and transformers are installed.
"""
