"""The one exception that bad input raises."""


class InputError(ValueError):
    """Bad input from the user. Its message is one line: what came, what was wanted, the mend.

    The command line prints the message and exits with status 2.

    line: of a text file that breaks its format, from 1; 0 where there is none.
    reason: the message without the file and the line.
    """

    def __init__(self, message: str, line: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.line, self.reason = line, reason or message


class DivergedError(RuntimeError):
    """Training met a loss that is not finite; the message says where and what to go back to."""


class StoppedError(RuntimeError):
    """A signal ended a run early; the message says where it was kept and how to go on.

    The command line prints the message and exits with status 128 + ``signal``, as a shell counts.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal
