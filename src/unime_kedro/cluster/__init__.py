"""Judging and embedding by workers on a Ray cluster."""
