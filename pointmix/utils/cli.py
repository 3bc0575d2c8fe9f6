"""How every script ends: an exit code, and one line for what its user can mend."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable

import torch

from pointmix.utils.messages import is_out_of_memory, one_line

LONGEST = 4000  # characters of a message; only what a file made up is longer


def exit_code(work: Callable[[], object]) -> int:
    """Do the work and return 0; 2 after a line on stderr for bad input or where memory does not suffice, 128 and the
    signal's number if stopped.

    Errors of other kinds are mistakes of the program and pass through. Warnings become one line each.
    """
    warnings.showwarning = lambda message, *_: print("warning:", one_line(message, LONGEST), file=sys.stderr)
    try:
        work()
    except KeyboardInterrupt as e:  # or the engine's Stopped, which names the signal
        print(str(e) or "interrupted", file=sys.stderr)
        return 128 + getattr(e, "signum", signal.SIGINT)
    except (ValueError, OSError, ImportError, FloatingPointError) as e:
        print("error:", one_line(e, LONGEST), file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        print("error: not enough memory:", one_line(e), file=sys.stderr)
        return 2
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # its threads must not outlive the interpreter
    return 0
