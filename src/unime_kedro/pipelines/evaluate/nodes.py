"""Nodes of pipeline ``evaluate``."""
