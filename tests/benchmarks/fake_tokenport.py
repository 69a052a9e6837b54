"""`tokenport serve` and `check` as far as commands that start servers see them: a process that answers, with memory and places made up.

    python fake_tokenport.py serve MODEL --port N [--max-model-len=N] [--max-num-seqs=N]

It refuses to start with a context of more than 5000 tokens, as a server does that lacks the memory, and makes a token every 20 ms.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN_S = 0.02
MOST_CONTEXT = 5000
KNOWN = {"port", "max-model-len", "max-num-seqs", "quantization", "fails"}


def options_of(words):
    found, rest = {}, list(words)
    while rest:
        name, _, value = rest.pop(0).removeprefix("--").partition("=")
        found[name] = value or rest.pop(0)
    return found


class Engine:
    """So many places; who finds none waits."""

    def __init__(self, places):
        self.places = threading.Semaphore(places)
        self.lock = threading.Lock()
        self.running = self.waiting = 0

    def change(self, running, waiting):
        with self.lock:
            self.running += running
            self.waiting += waiting


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        server = self.server
        if self.path == "/memory":
            self.reply(server.memory)
        elif self.path == "/metrics":
            engine = server.engine
            rows = {"num_requests_running": engine.running, "num_requests_waiting": engine.waiting, "kv_cache_usage_perc": 0.5}
            self.reply("".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in rows.items()), "text/plain")
        elif self.path == "/v1/models":
            self.reply({"object": "list", "data": [{"id": "fake", "root": "/nowhere", "max_model_len": server.max_model_len}]})
        elif self.path == "/ping":
            self.reply({})
        else:
            self.send_error(404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/completions":
            self.send_error(404)
            return
        engine = self.server.engine
        engine.change(0, 1)
        with engine.places:
            engine.change(1, -1)
            try:
                self.answer(body)
            finally:
                engine.change(-1, 0)

    def answer(self, body):
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        usage["total_tokens"] = sum(usage.values())
        if not body.get("stream"):
            self.reply({"object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": usage})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number in range(body["max_tokens"]):
            time.sleep(TOKEN_S)
            reason = "length" if number + 1 == body["max_tokens"] else None
            chunk = {"object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": reason}]}
            chunk["usage"] = {**usage, "completion_tokens": number + 1, "total_tokens": usage["prompt_tokens"] + number + 1}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        last = {"object": "text_completion", "choices": [], "usage": usage}
        self.wfile.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        self.close_connection = True


def ledger(max_model_len, is_int8):
    weights = 1000 if is_int8 else 2000
    parts = {"weights_bytes": weights, "kv_cache_bytes": 8000, "activation_peak_bytes": 10, "cuda_graph_bytes": 0, "non_torch_bytes": 90}
    total = 20000
    device = {
        "rank": 0,
        "device": "cpu",
        "total_bytes": total,
        **parts,
        "other_bytes": 0,
        "free_bytes": total - sum(parts.values()),
        "weights_by_dtype": {"int8" if is_int8 else "bfloat16": weights},
        "kv_cache_blocks": 10,
        "kv_cache_tokens": 160,
        "kv_cache_sequences": 160 / max_model_len,
    }
    planned = {name: {"estimate": size, "low": size // 2, "high": 2 * size} for name, size in parts.items()}
    planned |= {"kv_bytes_per_token": 50, "assumed": []}
    return {"devices": [device], "planned": planned, "start_up_s": {"starting": 0.1, "loading weights": 0.2}, "as_of_s": 0.0}


def main():
    command, _model, *words = sys.argv[1:]
    options = options_of(words)
    if unknown := set(options) - KNOWN:
        print(f"tokenport: unknown setting {sorted(unknown)[0]}", file=sys.stderr)
        return 1
    if command == "check":
        return 0
    max_model_len = int(options.get("max-model-len", "512"))
    if max_model_len > MOST_CONTEXT:
        print(f"Loading.\ntokenport: the model does not fit: a context of {max_model_len} tokens\nGoodbye.", file=sys.stderr)
        return 1
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler)
    server.daemon_threads = True
    server.max_model_len = max_model_len
    server.engine = Engine(int(options.get("max-num-seqs", "256")))
    server.memory = ledger(max_model_len, options.get("quantization") == "int8")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
