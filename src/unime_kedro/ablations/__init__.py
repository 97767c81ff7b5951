"""Ablations as data: groups of arms from ``ablations.yml``, run as isolated processes and compared in a table."""
