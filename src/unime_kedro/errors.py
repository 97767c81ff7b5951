"""The errors that a user can do something about."""

from __future__ import annotations


class UnimeError(Exception):
    """Base of every error of ours that is meant to be read by a user.

    The message names the file, row or key at fault, what was expected, and what to do. The command line prints
    it without a traceback and exits with status 1.
    """


class DataError(UnimeError):
    """The data on disk is not what a stage needs."""


class ConfigurationError(UnimeError):
    """A parameter or catalog entry is unknown, of the wrong type or out of range."""


class ModelError(UnimeError):
    """A model cannot be loaded, is of an unknown architecture, or gave unusable numbers."""
