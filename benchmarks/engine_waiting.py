"""A completions server that computes nothing: it waits as long as completions take, and answers.

Prints its address. The wait of a request is drawn by its seed, with the long tail that completions
have (log-normal, median 0.5 s); up to 32 requests wait side by side, as in a batch on a GPU.
"""

from __future__ import annotations

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tokenizers import Tokenizer

from thr_probe.lab import policy_directory

TOKENIZER = Tokenizer.from_file(str(policy_directory() / "tokenizer.json"))
AT_ONCE = threading.Semaphore(32)
WORD, END = 300, 1
ANSWER = TOKENIZER.encode(r"\boxed{56}").ids


def choice(prompt: list[int], word: int, length: int) -> dict[str, Any]:
    """A completion: one word again and again, an answer, the end."""
    ids = [word] * min(40, length - 1) + (ANSWER if length > 50 else []) + [END]
    spelled = [f"token_id:{token}" for token in ids]
    logprobs = {"tokens": spelled, "token_logprobs": [-1.0] * len(ids)}
    found = {"text": "", "finish_reason": "stop", "logprobs": logprobs}
    return found | {"token_ids": ids, "prompt_token_ids": prompt}


class Handler(BaseHTTPRequestHandler):
    """Completions of the lab's tokens."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The one model."""
        self.answer({"data": [{"id": "lab"}]})

    def do_POST(self) -> None:
        """Wait, then answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["prompt"]
        ids = TOKENIZER.encode(prompt).ids if isinstance(prompt, str) else prompt
        length = body["max_tokens"]
        if length > 1:
            with AT_ONCE:
                time.sleep(random.Random(body["seed"]).lognormvariate(-0.7, 0.8))
        choices = [choice(ids, WORD + index, length) for index in range(body.get("n", 1))]
        self.answer({"choices": choices})

    def answer(self, content: Any) -> None:
        """Send JSON."""
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()
