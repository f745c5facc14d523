"""The ``msclr`` command: the only place that prints."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence

from msclr import __version__
from msclr.cli import (
    bench,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    info,
    prepare,
    pretrain,
    recipe,
    report,
)
from msclr.cli._output import first_rank, never_fail_to_print, say
from msclr.errors import DivergedError, InputError, StoppedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit status is 0, 2 for bad input, 1 for a run or a machine that failed, and 128 + the
    signal's number for a run that a signal ended (130 for Ctrl-C, 143 for SIGTERM).
    """
    never_fail_to_print()
    arguments = _parse(argv)
    logging.basicConfig(level=logging.WARNING, format="msclr: %(message)s", stream=sys.stderr)
    try:
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        say(f"msclr: error: {error}")
        return 2
    except DivergedError as error:
        say(f"msclr: stopped: {error}")
        return 1
    except StoppedError as stopped:
        if first_rank():
            say(f"msclr: stopped: {stopped}")
        return 128 + stopped.signal
    except (OSError, MemoryError) as error:  # such as a full disk, or far too many frames
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        say(f"msclr: error: {' '.join(str(error).split()) or 'not enough memory'}")
        return 1
    except KeyboardInterrupt:
        say("msclr: interrupted")
        return 130


def _nobody_reads() -> bool:
    """Whether the reader of the output has gone, as `| head` does; nothing more is written then."""
    if not hasattr(select, "poll"):  # on Windows
        return False
    output, poll = sys.stdout.fileno(), select.poll()
    poll.register(output, select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse, but key=value may also follow an option: ``pretrain toy --resume epochs=3``."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [text for text in rest if "=" in text and not text.startswith("-")]
    if rest and (overrides != rest or not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="msclr", description="Fast multi-skeleton contrastive learning."
    )
    parser.add_argument("--version", action="version", version=f"msclr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo.add(commands)
    prepare.add(commands)
    pretrain.add(commands)
    recipe.add(commands)
    evaluate.add(commands)
    embed.add(commands)
    export.add(commands)
    report.add(commands)
    info.add(commands)
    doctor.add(commands)
    bench.add(commands)
    return parser
