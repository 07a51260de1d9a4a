"""How a command may end by a signal: for the way in and the gate, and free of imports, so that neither waits for it."""

INTERRUPTED, TERMINATED = 130, 143


class StoppedError(BaseException):
    """SIGTERM: raised in the main thread, so that it ends like Ctrl-C does."""
