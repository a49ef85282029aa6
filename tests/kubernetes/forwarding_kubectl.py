"""kubectl for clusters whose pods do not run: ``forwarding_kubectl.py PLACES ARGUMENT...``

PLACES is a JSON file: ``kubectl`` is the real one, which gets every command but ``port-forward``.
That one needs a kubelet; here it is a plain TCP forward to the port that PLACES has for the
target, in words and ways like kubectl's, and a target that PLACES lacks is not found.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def forward(target: str, remote: str, port: int | None) -> None:
    if port is None:
        name = target.removeprefix("pod/")
        sys.exit(f'Error from server (NotFound): pods "{name}" not found')
    server = socket.create_server(("127.0.0.1", 0))
    print(f"Forwarding from 127.0.0.1:{server.getsockname()[1]} -> {remote}", flush=True)
    while True:
        client, _ = server.accept()
        print(f"Handling connection for {server.getsockname()[1]}", flush=True)
        try:
            there = socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            client.close()
            continue
        for ends in ((client, there), (there, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def main() -> None:
    places = json.loads(Path(sys.argv[1]).read_text())
    arguments = sys.argv[2:]
    if "port-forward" not in arguments:
        os.execv(places["kubectl"], [places["kubectl"], *arguments])
    target, ports = arguments[-2:]
    forward(target, ports.lstrip(":"), places["forward"].get(target))


if __name__ == "__main__":
    main()
