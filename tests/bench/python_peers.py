"""The peers of the Python benchmarks: BaseManager's dict and lock as the well-known recipe has them, and a Redis of our own."""
import contextlib
import multiprocessing.managers
import shutil
import subprocess
import threading
import time

TEXT = "x" * 64
STATE = {"a": TEXT, "n": 0}
LOCK = threading.Lock()  # One for everybody: the class itself, registered, would make a lock for each caller.
START_SECONDS = 10


class PeerManager(multiprocessing.managers.BaseManager):
    """As the recipe has it: a dict and a lock of the server's process."""


PeerManager.register("get_dict", lambda: STATE, multiprocessing.managers.DictProxy)
PeerManager.register("get_lock", lambda: LOCK, multiprocessing.managers.AcquirerProxy)


@contextlib.contextmanager
def redis_server(folder):
    """The unix socket of a Redis that keeps everything in memory; None, with a line on stdout, where there is none."""
    try:
        import redis
    except ImportError:
        print("Redis: skipped: not installed (tests/bench/requirements.txt)")
        yield None
        return
    program = shutil.which("redis-server")
    if program is None:
        print("Redis: skipped: not installed (redis-server)")
        yield None
        return
    path = str(folder / "redis.sock")
    command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=path) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        yield path
    finally:
        server.terminate()
        server.wait()
