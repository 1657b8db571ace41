"""A worker dies with the process that it works for."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from fairdf_utils.workers import end_with_parent

POOLS = {
    "executor": """
import multiprocessing as m
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(1, m.get_context("spawn"), initializer=end_with_parent) as pool:
    pool.submit(work).result()
""",
    "joblib": """
import joblib
joblib.Parallel(2)([joblib.delayed(work)() for _ in range(2)])
""",
}


@pytest.mark.parametrize("pool", POOLS)
def test_workers_die_with_a_killed_parent(tmp_path, pool):
    (tmp_path / "job.py").write_text(
        "import os, pathlib, time\n"
        "from fairdf_utils.workers import end_with_parent\n"
        "def work():\n"
        "    end_with_parent()\n"
        "    pathlib.Path(f'{os.getpid()}.pid').write_text('')\n"
        "    time.sleep(120)\n"
        f"if __name__ == '__main__':\n    {POOLS[pool].strip().replace(chr(10), chr(10) + '    ')}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "job.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.pid")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = [psutil.Process(int(path.stem)) for path in tmp_path.glob("*.pid")]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    gone = lambda worker: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE  # noqa: E731
    deadline = time.monotonic() + 30
    while not all(map(gone, workers)):
        assert time.monotonic() < deadline, "a worker goes on after its parent was killed"
        time.sleep(0.05)


def test_nobodys_worker_is_not_watched():
    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before
