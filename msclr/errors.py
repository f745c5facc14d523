"""The one exception that bad input raises."""


class InputError(ValueError):
    """Bad input from the user. Its message is one line: what came, what was wanted, the mend.

    The command line prints the message and exits with status 2.
    """


class DivergedError(RuntimeError):
    """Training met a loss that is not finite; the message says where and what to go back to."""
