"""Nodes of pipeline ``report``."""
