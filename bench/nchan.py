"""nchan, the counterpart of the fan-out: a C module of nginx, from Debian's libnginx-mod-nchan."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import SERVER_CORE, Size, use_core

MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
CONFIG = """
load_module {module};
daemon off;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/pid;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  keepalive_requests 1000000000;
  nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{port};
    location = /pub {{ nchan_publisher; nchan_channel_id c; nchan_message_buffer_length 1000; }}
    location = /sub {{ nchan_subscriber eventsource; nchan_channel_id c; nchan_subscriber_first_message newest; }}
  }}
}}
"""


class Nchan:
    """A running nginx with nchan."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid


def available(size: Size) -> bool:
    """Whether nchan is here; as root it is installed if it is not, and figures in full are wanted."""
    if size == "full" and not Path(MODULE).exists() and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "libnginx-mod-nchan"], capture_output=True, check=False)
        # Debian starts it at once, on port 80.
        subprocess.run(["service", "nginx", "stop"], capture_output=True, check=False)
    return Path(MODULE).exists()


@contextmanager
def nchan() -> Iterator[Nchan]:
    folder = Path(tempfile.mkdtemp(prefix="bench-nchan-"))
    folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIG.format(module=MODULE, folder=folder, port=port))
    started = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")], preexec_fn=use_core(SERVER_CORE))
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield Nchan(port, started.pid)
    finally:
        started.terminate()
        started.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
