"""Stores to test tracking on: a ready SQLite file, and servers that fail in every known way."""

import atexit
import functools
import json
import shutil
import socket
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from medseg.tracking.store import client_settings, open_client, sqlite_uri


def put_store(home):
    """Put an empty store into a home folder; making one takes MLflow seconds, a copy none."""
    shutil.copyfile(_store(), home / "mlflow.db")


@functools.cache
def _store():
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with client_settings():
        open_client(sqlite_uri(folder / "mlflow.db"))
    return folder / "mlflow.db"


class StubServer:
    """Speaks as much of MLflow's REST API as a run without artifacts needs.

    Keeps every point it was sent, also those sent twice; `lost_answer` counts down to the request
    whose answer is lost after the work was done.
    """

    def __init__(self, port=0, mode="ok", delay_s=0.0):
        self.mode = mode
        self.delay_s = delay_s
        self.runs = {}
        self.points = []
        self.lost_answer = -1
        self._mutex = threading.Lock()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, route, body):
        with self._mutex:
            return getattr(self, "_" + route.replace("/", "_").replace("-", "_"))(body)

    def _experiments_get_by_name(self, _body):
        return {"experiment": {"experiment_id": "1", "name": "any", "lifecycle_stage": "active"}}

    def _runs_search(self, body):
        wanted = body["filter"].rpartition("= ")[2].strip("'")
        return {"runs": [run for run in self.runs.values() if wanted in json.dumps(run)]}

    def _runs_create(self, body):
        run_id = f"{len(self.runs):032x}"
        self.runs[run_id] = {
            "info": {
                "run_id": run_id,
                "run_uuid": run_id,
                "experiment_id": "1",
                "status": "RUNNING",
                "lifecycle_stage": "active",
                "start_time": 0,
                "artifact_uri": "mlflow-artifacts:/1",
            },
            "data": {"tags": body.get("tags", []), "params": []},
        }
        return {"run": self.runs[run_id]}

    def _runs_get(self, body):
        return {"run": self.runs[body["run_id"]]}

    def _runs_update(self, body):
        self.runs[body["run_id"]]["info"]["status"] = body["status"]
        return {"run_info": self.runs[body["run_id"]]["info"]}

    def _runs_log_batch(self, body):
        self.points += [
            (point["key"], point["step"], point["timestamp"]) for point in body.get("metrics", [])
        ]
        return {}


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer

    def do_GET(self):
        query = dict(pair.split("=") for pair in urlsplit(self.path).query.split("&") if pair)
        self._reply(query)

    def do_POST(self):
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body):
        route = urlsplit(self.path).path.partition("/mlflow/")[2]
        if self.stub.mode == "500":
            self._send(500, {"error_code": "INTERNAL_ERROR", "message": "the stub is failing"})
            return
        time.sleep(self.stub.delay_s)
        if urlsplit(self.path).path == "/health":
            self._send(200, {})
            return
        answer = self.stub.answer(route, body)
        self.stub.lost_answer -= 1
        if self.stub.lost_answer == 0:
            self._send(500, {"error_code": "INTERNAL_ERROR", "message": "the answer is lost"})
            return
        self._send(200, answer)

    def _send(self, status, body):
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            # The client has lost patience, which is what some tests are about.
            pass

    def log_message(self, *args):
        pass


def black_hole():
    """Return a listening socket that takes connections and never answers."""
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(64)
    return hole


def free_port():
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
