"""A small HTTP server that speaks OpenAI's completions, draws from a fake model, and misbehaves."""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NUM_LETTERS = 12


class FakeModel:
    """Draws every token from a distribution that the prompt alone decides: letters and an end."""

    def __init__(self, tokenizer, *, eos_id, end_logit=0.5):
        self.tokenizer, self.eos_id, self.end_logit = tokenizer, eos_id, end_logit
        # one token each in every byte-level vocabulary
        letters = [tokenizer.encode(letter, add_special_tokens=False) for letter in "abcdefghijklm"]
        self.letters = [ids[0] for ids in letters if len(ids) == 1][:NUM_LETTERS]

    def logits(self, prompt_ids):
        key = hashlib.sha256(json.dumps(list(prompt_ids)).encode()).digest()
        rng = random.Random(key)
        return {token: rng.gauss(0, 1.5) for token in self.letters} | {self.eos_id: self.end_logit}

    def distribution(self, prompt_ids, temperature=1.0, top_p=1.0):
        """token -> probability at a temperature, cut to the nucleus."""
        logits = self.logits(prompt_ids)
        scaled = {token: math.exp(value / (temperature or 1.0)) for token, value in logits.items()}
        total = sum(scaled.values())
        ordered = sorted(((value / total, token) for token, value in scaled.items()), reverse=True)
        if temperature == 0:
            return {token: share for share, token in ordered}
        kept, mass = {}, 0.0
        for share, token in ordered:
            if mass >= top_p:
                break
            kept[token] = share
            mass += share
        return {token: share / mass for token, share in kept.items()}

    def draw(self, prompt_ids, *, seed, max_tokens, temperature, top_p):
        shares = self.distribution(prompt_ids, temperature, top_p)
        rng = random.Random(seed)
        ids = []
        while len(ids) < max_tokens:
            if temperature == 0:
                ids.append(max(shares, key=shares.get))
            else:
                ids.append(rng.choices(list(shares), weights=list(shares.values()))[0])
            if ids[-1] == self.eos_id:
                return ids, "stop"
        return ids, "length"


class FakeServer:
    """What the server does is set by its attributes; `faults` are done first, one per request."""

    def __init__(self, model):
        self.model = model
        self.tokenizer = model.tokenizer  # of the prompts that come as text
        self.name, self.max_model_len = "fake", None
        self.key = None
        self.takes_ids = self.honours_n = self.gives_logprobs = self.shows_models = True
        self.takes_extras = True
        self.one_seed = False  # for all completions of a request
        self.gives_ids = "ids"  # ids, tokens ("token_id:7"), content (llama.cpp's form), none
        self.strips_eos = False
        self.counts_prompt = True
        self.processed = True  # logprobs of the distribution drawn from
        self.finish = {}  # finish_reason to write in place of another
        self.per_second = None
        self.delay = 0.0  # seconds per completion request
        self.faults = deque()
        self.refused = 0  # for the rate
        self.bodies, self.headers, self.times = [], [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.recent = deque()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"fake": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def completion(self, body):
        """(status, answer) to a completions request."""
        if body.get("model") != self.name:
            return 404, error(f"The model `{body.get('model')}` does not exist.")
        if isinstance(body["prompt"], str):
            prompt = self.tokenizer.encode(body["prompt"])
        elif self.takes_ids:
            prompt = body["prompt"]
        else:
            return 400, error("prompt: input should be a valid string")
        if "top_k" in body and not self.takes_extras:
            return 400, error("Unrecognized request argument supplied: top_k")
        count = body.get("n", 1) if self.honours_n else 1
        choices = [self.choice(body, prompt, index) for index in range(count)]
        answer = {"object": "text_completion", "model": self.name, "choices": choices}
        if self.counts_prompt:
            answer["usage"] = {"prompt_tokens": len(prompt)}
        return 200, answer

    def choice(self, body, prompt, index):
        temperature, top_p = body.get("temperature", 1.0), body.get("top_p", 1.0)
        ids, reason = self.model.draw(
            prompt,
            seed=body.get("seed", 0) + (0 if self.one_seed else index),
            max_tokens=body["max_tokens"],
            temperature=temperature,
            top_p=top_p,
        )
        at = (temperature, top_p) if self.processed else (1.0, 1.0)
        shares = self.model.distribution(prompt, *at)
        shown = ids[:-1] if self.strips_eos and reason == "stop" else ids
        choice = {
            "index": index,
            "text": self.model.tokenizer.decode(ids, skip_special_tokens=True),
            "finish_reason": self.finish.get(reason, reason),
            "logprobs": None,
        }
        if self.gives_ids == "ids" and body.get("return_token_ids"):
            choice |= {"token_ids": shown, "prompt_token_ids": prompt}
        if self.gives_logprobs and body.get("logprobs") is not None:
            choice["logprobs"] = self.logprobs(body, shown, shares)
        return choice

    def logprobs(self, body, ids, shares):
        def spelled(token):
            if self.gives_ids == "tokens" and body.get("return_tokens_as_token_ids"):
                return f"token_id:{token}"
            return self.model.tokenizer.decode([token])

        top = dict(sorted(shares.items(), key=lambda item: -item[1])[: body["logprobs"]])
        values = [math.log(shares[token]) if token in shares else -9999.0 for token in ids]
        likeliest = {spelled(token): math.log(share) for token, share in top.items()}
        if self.gives_ids == "content":
            tops = [{"token": token, "logprob": value} for token, value in likeliest.items()]
            return {
                "content": [
                    {"id": token, "token": spelled(token), "logprob": value, "top_logprobs": tops}
                    for token, value in zip(ids, values, strict=True)
                ]
            }
        return {
            "tokens": [spelled(token) for token in ids],
            "token_logprobs": values,
            "top_logprobs": [likeliest for _ in ids],
        }

    def over_the_limit(self):
        """Seconds to wait for, where there were too many requests within the last second."""
        now = time.monotonic()
        while self.recent and now - self.recent[0] >= 1:
            self.recent.popleft()
        if self.per_second is None or len(self.recent) < self.per_second:
            self.recent.append(now)
            return None
        return 1 - (now - self.recent[0])


def is_real(body):
    """Whether a request is one of those for completions, not one that finds out the dialect."""
    return body["max_tokens"] > 1 and body.get("temperature") != 2.0


def error(message):
    return {"error": {"message": message, "type": "BadRequestError", "code": 400}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._guarded(self._get)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.fake.lock:
            self.fake.at_once += 1
            self.fake.most_at_once = max(self.fake.most_at_once, self.fake.at_once)
        try:
            time.sleep(self.fake.delay)
            self._guarded(lambda: self._post(body))
        finally:
            with self.fake.lock:
                self.fake.at_once -= 1

    def _guarded(self, answer):
        fake = self.fake
        fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        if fake.key and self.headers.get("authorization") != f"Bearer {fake.key}":
            said = self.headers.get("authorization", "none")
            self.answer(401, error(f"Incorrect API key provided: {said}"))
        elif not self.path.startswith("/v1/"):
            self.answer(404, {"detail": "Not Found"})
        else:
            answer()

    def _get(self):
        fake = self.fake
        if self.path != "/v1/models" or not fake.shows_models:
            self.answer(404, {"detail": "Not Found"})
            return
        names = [fake.name] if isinstance(fake.name, str) else fake.name
        cards = [{"id": name, "max_model_len": fake.max_model_len} for name in names]
        self.answer(200, {"object": "list", "data": cards})

    def _post(self, body):
        fake = self.fake
        with fake.lock:
            wait = fake.over_the_limit()
            fault = fake.faults.popleft() if fake.faults and is_real(body) else None
            fake.bodies.append(body)
            fake.times.append(time.monotonic())
        if wait is not None:
            fake.refused += 1
            headers = {"Retry-After": f"{wait:.3f}"}
            self.answer(429, error("slow down"), headers)
        elif fault is not None:
            fault(self)
        elif self.path != "/v1/completions":
            self.answer(404, {"detail": "Not Found"})
        else:
            self.answer(*fake.completion(body))

    def answer(self, status, content, headers=None, kind="application/json"):
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client has gone
            self.close_connection = True


def fails(status, content=None, **headers):
    """A fault: an error status."""
    return lambda handler: handler.answer(
        status,
        content or error(f"status {status}"),
        {k.replace("_", "-"): v for k, v in headers.items()},
    )


def answers(content, kind="application/json"):
    """A fault: success, with this body."""
    return lambda handler: handler.answer(200, content, kind=kind)


def breaks_off(handler):
    """A fault: the connection dies in the middle of the body."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def hangs(seconds):
    """A fault: no answer for a while."""

    def fault(handler):
        time.sleep(seconds)
        handler.close_connection = True

    return fault
