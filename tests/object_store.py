"""An S3 server on loopback that counts what it is asked for; for tests and benchmarks."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Request(NamedTuple):
    """One request: its kind, its object, and what `CountedStore.label` said then."""

    kind: str
    key: str
    who: str


class CountedStore:
    """Moto's S3 in a thread, with a count of requests by kind.

    Attributes:
        endpoint: address of the server.
        requests: every one, in order. Kinds: ``HEAD``, ``GET``, ``PUT``, ``DELETE``, ``LIST``,
            ``POST`` and ``PART`` (of an upload in several parts).
        label: says who asks.
        latency: seconds that every answer waits.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.requests: list[Request] = []
        self.label: Callable[[], str] = lambda: ""
        self.latency = 0.0
        self._app: Callable[..., Any] = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Make an object without a request."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, data)

    def count(self) -> Counter[str]:
        """Return the requests by kind."""
        return Counter(one.kind for one in self.requests)

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """Yield a list that holds, afterwards, the requests of the block."""
        found: list[Request] = []
        before = len(self.requests)
        yield found
        found += self.requests[before:]

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        query = environ.get("QUERY_STRING", "")
        kind = environ["REQUEST_METHOD"]
        if "list-type" in query:
            kind = "LIST"
        elif "uploadId" in query or "uploads" in query:
            kind = "POST" if kind == "POST" else "PART"
        self.requests.append(Request(kind, environ["PATH_INFO"], self.label()))
        time.sleep(self.latency)
        return self._app(environ, start_response)
