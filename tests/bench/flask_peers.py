"""The Flask counter of deploy/quickstart/app.py on other states, for flask_bench.py.

    PEER=manager|redis|plain PEER_SOCKET=… gunicorn -w 4 flask_peers:app

plain counts nothing: what Flask, gunicorn and the load generator cost without any state.
"""
import os

import flask

app = flask.Flask(__name__)
socket = os.environ["PEER_SOCKET"]

if os.environ["PEER"] == "manager":
    from python_peers import PeerManager

    manager = PeerManager(socket, b"key")
    manager.connect()
    shared_dict, shared_lock = manager.get_dict(), manager.get_lock()

    @app.get("/")
    def count():
        with shared_lock:
            number = shared_dict["n"] = shared_dict.get("n", 0) + 1
            return str(number)

elif os.environ["PEER"] == "redis":
    import redis

    client = redis.Redis(unix_socket_path=socket)

    @app.get("/")
    def count():
        # The client polls for a lock; every tenth of a second unless told otherwise.
        with client.lock("lock", sleep=0.001):
            number = int(client.get("n") or 0) + 1
            client.set("n", number)
            return str(number)

    @app.get("/incr")
    def incr():
        return str(client.incr("hits"))

else:

    @app.get("/")
    def count():
        return "0"
