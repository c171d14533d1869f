"""The second application of the quickstart: login, logout and a count of the users, under a server that forks a process for each request.

    users.py FD        serves on the listening socket of this descriptor; HOST, PORT and KEY name the state
"""
import os
import sys

import flask
import werkzeug.serving

from statehouse.compat.managers import get_shared_state

HOST, PORT, KEY = os.environ["HOST"], int(os.environ["PORT"]), os.environ["KEY"]
PROCESSES = 4

shared_dict, shared_lock = get_shared_state(HOST, PORT, KEY)
app = flask.Flask(__name__)


@app.get("/login/<user>")
def login(user):
    with shared_lock:
        if user not in shared_dict.setdefault("users", {}):
            shared_dict["users_count"] = shared_dict.get("users_count", 0) + 1
        shared_dict["users"][user] = os.getpid()  # One key of a dict inside the dict; the others stay.
    return "hello"


@app.get("/logout/<user>")
def logout(user):
    with shared_lock:
        if shared_dict["users"].pop(user, None) is not None:
            shared_dict["users_count"] -= 1
    return "bye"


@app.get("/show_users_count")
def show_users_count():
    return str(shared_dict.get("users_count", 0))


if __name__ == "__main__":
    werkzeug.serving.make_server("127.0.0.1", 0, app, processes=PROCESSES, fd=int(sys.argv[1])).serve_forever()
