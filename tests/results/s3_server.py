"""moto's S3 on a port of the loopback, with what a test may do to it: throttle it, and look into its buckets."""

import itertools
import logging
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "AKIDOFTHETESTS", "secret/of+the/tests"
_ACCOUNT = "123456789012"
_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3Server:
    """A server in a thread of this process; other processes reach it too."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._buckets = (f"bucket-{number}" for number in itertools.count())
        self._one_at_a_time = threading.Lock()
        self.throttled: str | None = None  # requests whose path contains this are refused
        self.is_ignoring_conditions = threading.Event()
        self.num_refused = 0
        self.requests: list[str] = []  # method and path

    def __enter__(self) -> "S3Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """By which clients find it, and nothing else."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = next(self._buckets)
        get_backend("s3")[_ACCOUNT]["aws"].create_bucket(name, "us-east-1")
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        keys = get_backend("s3")[_ACCOUNT]["aws"].buckets[bucket].keys
        return {name: key.value for name, key in keys.items()}

    def set_time(self, path: str, when: float) -> None:
        """Sets when the object at `bucket/name` was written, seconds since the epoch."""
        bucket, _, name = path.partition("/")
        get_backend("s3")[_ACCOUNT]["aws"].buckets[bucket].keys[name].last_modified = datetime.fromtimestamp(when, UTC)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Puts an object into a bucket without a request."""
        get_backend("s3")[_ACCOUNT]["aws"].put_object(bucket, name, content)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.throttled is not None and self.throttled in environ["PATH_INFO"]:
            self.num_refused += 1
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [_SLOW_DOWN]
        if self.is_ignoring_conditions.is_set():
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self._one_at_a_time:  # moto looks and then writes, where S3 does both in one step
            return list(self._app(environ, start_response))
