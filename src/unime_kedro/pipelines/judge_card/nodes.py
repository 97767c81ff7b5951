"""Nodes of pipeline ``judge_card``."""
