"""The load generator: requests over a number of kept connections, each retried until it is answered."""
import http.client
import threading
import time


class Load:
    """Sends `paths` over `connections` connections. `answers` holds the body of each, in no order.

    A request whose connection breaks is sent again (`retried` counts them) for at most `patience` seconds.
    """

    def __init__(self, port, paths, connections=8, patience=30.0):
        self.port = port
        self.paths = iter(paths)
        self.patience = patience
        self.answers = []
        self.retried = 0
        self.failed = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(connections)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def join(self):
        for thread in self.threads:
            thread.join()
        return self

    def answered(self):
        with self.lock:
            return len(self.answers)

    def _next(self):
        with self.lock:
            return next(self.paths, None)

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while (path := self._next()) is not None:
            deadline = time.monotonic() + self.patience
            while True:
                try:
                    connection.request("GET", path)
                    response = connection.getresponse()
                    body = response.read().decode()
                    if response.status != 200:
                        raise http.client.HTTPException(f"status {response.status}: {body[:200]}")
                    with self.lock:
                        self.answers.append(body)
                    break
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    with self.lock:
                        self.retried += 1
                        if time.monotonic() > deadline:
                            self.failed.append(f"{path}: {error}")
                            break
        connection.close()
