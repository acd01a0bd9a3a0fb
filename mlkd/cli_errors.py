"""How the command `mlkd` reports errors: one line on standard error and an exit code, or with --debug the traceback."""

from __future__ import annotations

import logging
import sys
import traceback

from mlkd.errors import DataError, PluginError, RunError, TrainingError, WeightsError, WriteError, printable
from mlkd.registry import plugin_location

FAILED, WRONG_ARGUMENT = 1, 2
"""Exit codes: something failed, or an argument is wrong."""

FAILURES = (DataError, PluginError, RunError, TrainingError, WeightsError, WriteError, ImportError)


class PrintableFormatter(logging.Formatter):
    """Messages without control characters, which file names and data may contain."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stdout() -> None:
    """Shows the package's messages, such as which finished run was found; those of other packages stay hidden."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logger = logging.getLogger("mlkd")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


def set_debug() -> None:
    """With this, errors are reported with their traceback."""
    logging.getLogger("mlkd").setLevel(logging.DEBUG)


def report_error(error: BaseException) -> int | None:
    """Prints the message of an error and returns the exit code; None for an error of mlkd itself.

    An error that was raised in a plugin names the plugin and the line.
    """
    message, code = str(error), FAILED
    if not isinstance(error, FAILURES):
        if location := plugin_location(error):
            message = f"{location}: {type(error).__name__}: {error}"
        elif isinstance(error, ValueError):
            code = WRONG_ARGUMENT
        else:
            return None
    if logging.getLogger("mlkd").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    print(printable(f"mlkd: {message}"), file=sys.stderr)
    return code
