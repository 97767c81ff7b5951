"""Vendored data."""
