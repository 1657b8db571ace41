"""Worker processes that do not outlive the process they work for."""

import functools
import multiprocessing
import os
import threading
import time


@functools.cache
def end_with_parent() -> None:
    """Let this worker die when its parent is killed; it would go on with what it was given, then wait forever.

    For pools, joblib's included; in a process that is nobody's worker it does nothing. Calls after the first do
    nothing either.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch():
        while os.getppid() == parent.pid:  # joblib's workers have no sentinel that could be waited for
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
