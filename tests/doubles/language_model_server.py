"""A real HTTP server that speaks text-generation-inference's and OpenAI's protocols over a scripted language model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], str]
"""Prompt and seed -> the text that the model would write up to its own end."""


@dataclass
class LanguageModelServer:
    """What the server does and what it was asked. A token is a character."""

    answer: Answer
    port: int = 0
    key: str = ""
    """When set, requests without it are refused."""
    models: list[str] = field(default_factory=lambda: ["stand-in"])
    refusals: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    """Answers that the next questions get instead: status, headers, body."""
    endless: bool = False
    """Never stops writing."""
    prompts: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    server_model: LanguageModelServer

    def do_GET(self) -> None:
        if self.path == "/info":
            self._send({"model_id": self.server_model.models[0], "model_sha": "abc123"})
        elif self.path == "/v1/models":
            self._send({"data": [{"id": name} for name in self.server_model.models]})
        else:
            self._send({"error": "no such path"}, status=404)

    def do_POST(self) -> None:
        model = self.server_model
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model.bodies.append(body)
        model.authorizations.append(self.headers.get("Authorization", ""))
        try:
            if model.key and self.headers.get("Authorization") != f"Bearer {model.key}":
                self._send({"error": {"message": "bad key"}}, status=401)
            elif model.refusals:
                status, headers, data = model.refusals.pop(0)
                self._raw(status, dict(headers), data)
            elif model.endless:
                self._endless()
            elif self.path in ("/generate", "/generate_stream"):
                self._tgi(body, stream=self.path.endswith("stream"))
            elif self.path in ("/v1/chat/completions", "/v1/completions"):
                self._openai(body, chat="chat" in self.path)
            else:
                self._send({"error": "no such path"}, status=404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Tests look at what was asked instead."""

    def _written(self, prompt: str, seed: int | None, limit: int, stops: list[str]) -> tuple[str, str]:
        self.server_model.prompts.append(prompt)
        text = self.server_model.answer(prompt, seed or 0)
        ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
        if ends and min(ends) <= limit:
            return text[: min(ends)], "stop_sequence"
        return (text[:limit], "length") if len(text) > limit else (text, "eos_token")

    def _tgi(self, body: Mapping[str, Any], *, stream: bool) -> None:
        asked = body["parameters"]
        for name in ("temperature", "top_p"):
            if asked.get(name) is not None and asked[name] <= 0:
                message = f"Input validation error: `{name}` must be strictly positive"
                self._send({"error": message, "error_type": "validation"}, status=200 if stream else 422, event=stream)
                return
        seed = asked.get("seed")
        text, reason = self._written(body["inputs"], seed, asked["max_new_tokens"], asked["stop"])
        details = {"finish_reason": reason, "generated_tokens": len(text), "seed": seed}
        full = body["inputs"] + text if asked["return_full_text"] else text
        if not stream:
            self._send({"generated_text": full, "details": {**details, "prefill": [], "tokens": []}},
                       headers={"x-prompt-tokens": str(len(body["inputs"]))})  # fmt: skip
            return
        self._begin("text/event-stream")
        for index, character in enumerate(text, start=1):
            last = index == len(text)
            self._event({
                "index": index,
                "token": {"id": ord(character), "text": character, "logprob": -0.5, "special": False},
                "generated_text": full if last else None,
                "details": {**details, "input_length": len(body["inputs"])} if last else None,
            })  # fmt: skip

    def _openai(self, body: Mapping[str, Any], *, chat: bool) -> None:
        if body["model"] not in self.server_model.models:
            self._send({"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404)
            return
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        stops = body.get("stop") or []
        text, reason = self._written(prompt, body.get("seed"), body["max_tokens"], stops)
        stopped_by = next((stop for stop in stops if text.endswith(stop)), None) if reason == "stop_sequence" else None
        # As vLLM does: the stop sequence is not part of the text, but named beside it.
        text = text.removesuffix(stopped_by) if stopped_by else text
        ending = {"finish_reason": "length" if reason == "length" else "stop", "stop_reason": stopped_by}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        if not body.get("stream"):
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            self._send({"choices": [{**said, **ending}], "usage": usage})
            return
        self._begin("text/event-stream")
        for start in range(0, len(text), 3):
            part = text[start : start + 3]
            self._event({"choices": [{"delta": {"content": part}} if chat else {"text": part}]})
        self._event({"choices": [{**({"delta": {}} if chat else {"text": ""}), **ending}], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _endless(self) -> None:
        self._begin("application/json")
        while not self.server_model.closing.is_set():
            self.wfile.write(b'{"generated_text": "' + b"x" * 65536)

    def _begin(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def _event(self, row: Mapping[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(row).encode() + b"\n\n")

    def _send(
        self, row: object, *, status: int = 200, headers: Mapping[str, str] | None = None, event: bool = False
    ) -> None:
        data = json.dumps(row).encode()
        kind = "text/event-stream" if event else "application/json"
        self._raw(status, {"Content-Type": kind, **(headers or {})}, b"data:" + data + b"\n\n" if event else data)

    def _raw(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that hang up are what some tests are about."""


@contextmanager
def serving(answer: Answer) -> Iterator[LanguageModelServer]:
    """The server while the block runs."""
    model = LanguageModelServer(answer)
    server = _Server(("127.0.0.1", 0), type("ModelHandler", (Handler,), {"server_model": model}))
    model.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        model.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
