"""An S3-compatible store in this process: moto's server, and the environment that leads to it."""

import importlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

# Before anything speaks to a store; processes that are started later inherit it.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def running() -> Iterator[str]:
    """The URL of an empty bucket."""
    import logging

    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    # Instances are kept by fsspec and would go on speaking to an earlier server.
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"tests-{uuid.uuid4().hex[:8]}"
    try:
        s3fs.S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def missing(*packages: str) -> str:
    """Which of these packages are not installed; empty if none."""
    lacking = []
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError:
            lacking.append(name)
    return ", ".join(lacking)
