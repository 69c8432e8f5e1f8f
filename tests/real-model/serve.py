#!/usr/bin/env python3
"""Runs llama.cpp's own HTTP server in this process until it is told to end.

usage: serve.py MODEL PORT

Environment: THREADS (1), SLOTS (2) answers at a time, CONTEXT (2048) tokens for each, ALIAS (smollm2).
Prints one line, `ready URL`, when it listens. Everything a test wants to look at is switched on: /slots, /props,
/metrics.
"""

import os
import signal
import sys
import threading

import xllamacpp


def settings(model: str, port: int) -> "xllamacpp.CommonParams":
    threads = int(os.environ.get("THREADS", "1"))
    slots = int(os.environ.get("SLOTS", "2"))
    alias = os.environ.get("ALIAS", "smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = int(os.environ.get("CONTEXT", "2048")) * slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # Prompts are read in small steps: between two steps the server can notice that it need not go on.
    params.n_batch = params.n_ubatch = 64
    params.n_gpu_layers = 0
    params.offline = True
    params.ui = False
    params.endpoint_slots = True
    params.endpoint_props = True
    params.endpoint_metrics = True
    params.model_alias = type(params.model_alias)([alias])
    return params


def main() -> None:
    model, port = sys.argv[1], int(sys.argv[2])
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(settings(model, port))
    print("ready", server.listening_address, flush=True)
    ended.wait()
    # The server's own shutdown waits for running answers; a test that ends it does not.
    os._exit(0)


if __name__ == "__main__":
    main()
