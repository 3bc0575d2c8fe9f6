"""Exit codes of the scripts, with one line for errors that a user can fix."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable

from pointmix.utils.messages import is_out_of_memory, one_line

LONGEST = 4000  # characters of a message; only the content of a file makes one longer


def exit_code(work: Callable[[], object]) -> int:
    """Run a script and return its exit code: 0; 2 after one line on stderr for bad input or too little memory; 128 plus
    the signal number if it was stopped.

    Other exceptions are bugs and propagate. Warnings are printed in one line each.
    """
    warnings.showwarning = lambda message, *_: print("warning:", one_line(message, LONGEST), file=sys.stderr)
    try:
        work()
    except KeyboardInterrupt as e:  # or a subclass that knows the signal
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
        torch = sys.modules.get("torch")  # --help and wrong flags end without it
        if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # its threads must not outlive the interpreter
    return 0
