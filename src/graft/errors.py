"""The class of every error that a user, not a bug, can cause."""


class GraftError(ValueError):
    """Bad input: the message says what was expected, what was received and where, and stands alone without a trace."""
