"""Nodes of pipeline ``rerank``."""
