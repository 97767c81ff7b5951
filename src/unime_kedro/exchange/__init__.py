"""Mined negatives in the formats of other trainers, and pools and scores that others made."""
