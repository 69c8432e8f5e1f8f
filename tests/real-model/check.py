#!/usr/bin/env python3
"""A real small model through the gateway, asked by the official SDKs.

Environment:
  MODEL_URL      root of a running llama.cpp server, such as http://127.0.0.1:8080
  OUTRIGGER_BIN  the binary to put before it
  MODEL_LOG      that server's log, in which it says when it gives a call up
  GATEWAY=0      ask the model directly: what only a gateway can do is left out
  NODE_DRIVERS   the folder with the Node drivers and their modules; unset: they are left out

What a small model says is not judged, and no speed is asserted but one: when a client leaves, the gateway must let
go of the model within a second, or the next caller waits for an answer that nobody reads. The model itself notices a
closed connection when it next writes; where it has nothing to write yet it looks once a second, and starts that
second anew each time it is asked for its slots. So there it must be left alone while it is timed.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "sdk" / "python"))

import anthropic
import openai

from relay import Relay, relay
from report import check, done, equal, note
from servers import Gateway, fetch, gateway

MODEL = os.environ["MODEL_URL"].rstrip("/")
THROUGH = os.environ.get("GATEWAY", "1") != "0"
NAME = "smollm2"
LEFT_WITHIN = 1.0
WATCH = 1.0
OURS = ("id", "route", "endpoint", "attempts", "outcome")


class Sum:
    """Tokens as the answers reported them."""

    def __init__(self) -> None:
        self.input = 0
        self.output = 0
        self.lock = threading.Lock()

    def add(self, usage) -> None:
        with self.lock:
            self.input += usage.prompt_tokens
            self.output += usage.completion_tokens


def ask(words: str, **more) -> dict:
    return {"model": NAME, "messages": [{"role": "user", "content": words}], **more}


def long_prompt(number: int, words: int) -> str:
    # Begins differently each time: the server keeps the beginnings of prompts it has read.
    return f"Story {number}. " + "The quick brown fox jumps over the lazy dog. " * (words // 9)


def busy() -> bool:
    return any(slot["is_processing"] for slot in json.loads(fetch(f"{MODEL}/slots")[2]))


def given_up() -> int:
    """How many calls the model says it has given up."""
    return Path(os.environ["MODEL_LOG"]).read_text(errors="replace").count("cancel task")


def until(reached, within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not reached():
        assert time.monotonic() < deadline, f"{what} after {within} s"
        time.sleep(0.01)


def ours(headers) -> None:
    if THROUGH:
        missing = [name for name in OURS if not headers.get(f"x-outrigger-{name}")]
        assert not missing, f"no x-outrigger- headers: {missing}"
        # This server promises to keep connections and closes them after each stream all the same: a send may meet one
        # that is just going. Nothing else may need a second send.
        for failed in filter(None, headers.get("x-outrigger-trail", "").split(", ")):
            assert ";class=reset_before_response;" in failed, failed


def chats(client: openai.OpenAI, spent: Sum) -> None:
    def one(number: int) -> None:
        raw = client.chat.completions.with_raw_response.create(**ask(f"Count from {number}.", max_tokens=8))
        ours(raw.headers)
        answer = raw.parse()
        assert answer.choices[0].message.content, "an empty answer"
        assert answer.choices[0].finish_reason in ("stop", "length"), answer.choices[0].finish_reason
        spent.add(answer.usage)

    with check("real: 50 chat calls answer"), ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(50)))


def streams(client: openai.OpenAI, spent: Sum) -> None:
    def one(number: int) -> None:
        asked = ask(f"Name {number} animals.", max_tokens=16, stream=True, stream_options={"include_usage": True})
        with client.chat.completions.with_streaming_response.create(**asked) as raw:
            ours(raw.headers)
            text, finish, usage = "", None, None
            for chunk in raw.parse():
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
        assert text and finish in ("stop", "length") and usage, (text, finish, usage)
        spent.add(usage)

    with check("real: 20 streams run to their end"), ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(20)))


def tokens(through: Gateway | None, spent: Sum) -> None:
    if not through:
        return
    for direction, want in (("input", spent.input), ("output", spent.output)):
        with check(f"real: {direction} tokens are counted as reported"):
            deadline = time.monotonic() + 3
            labels = {"direction": direction, "source": "reported"}
            while (have := through.metric("outrigger_tokens_total", **labels)) != want:
                assert time.monotonic() < deadline, f"counted {have}, reported {want}"
                time.sleep(0.05)


async def leave(base: str, number: int, stream: bool, mid: bool) -> float:
    """Leaves one call while the model works on it; returns the moment."""
    words = "Tell a very long story." if mid or not stream else long_prompt(number, 900)
    client = openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0)
    speaking = asyncio.Event()

    async def call() -> None:
        asked = ask(f"{number}. {words}", max_tokens=900, stream=stream, extra_body={"ignore_eos": True})
        answer = await client.chat.completions.create(**asked)
        if stream:
            chunks = 0
            async for _ in answer:
                chunks += 1
                if chunks == 3:
                    speaking.set()

    task = asyncio.create_task(call())
    try:
        deadline = time.monotonic() + 20
        while not ((speaking.is_set() or not mid) and await asyncio.to_thread(busy)):
            assert not task.done(), f"the call was over before it was left: {task}"
            assert time.monotonic() < deadline, "the model never began"
            await asyncio.sleep(0.01)
        assert mid or not speaking.is_set(), "the first token came before the client left"
        moment = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return moment
    finally:
        await client.close()


def cancellations(base: str, between: Relay) -> None:
    cases = (
        ("a stream in its middle", True, True, 4),
        ("a stream before its first token", True, False, 3),
        ("an answer that is no stream", False, False, 3),
    )
    number = 0
    for name, stream, mid, times in cases:
        for turn in range(times):
            number += 1
            with check(f"real: {name} is left, {turn + 1} of {times}: the model is free again"):
                before = given_up()
                moment = asyncio.run(leave(base, number, stream, mid))
                until(lambda: between.left_since(moment) is not None, LEFT_WITHIN, "the model's connection stands")
                let_go = between.left_since(moment)
                if not mid:
                    until(lambda: given_up() > before, LEFT_WITHIN + WATCH, "the model still works")
                until(lambda: not busy(), LEFT_WITHIN, "a slot is still at work")
                idle = time.monotonic() - moment
                note(f"let go after {let_go * 1000:.0f} ms, idle after {idle * 1000:.0f} ms")
                bound = LEFT_WITHIN if mid else LEFT_WITHIN + WATCH
                assert idle < bound, f"idle after {idle:.2f} s"


def refusals(client: openai.OpenAI, root: str) -> None:
    def refused(prompt: str) -> openai.BadRequestError:
        try:
            client.chat.completions.create(**ask(prompt, max_tokens=4))
        except openai.BadRequestError as error:
            return error
        raise AssertionError("it was answered")

    # Fewer words than the window has tokens, but each is several: only the model can count them.
    with check("real: a prompt over the window is a BadRequestError in llama.cpp's own words"):
        error = refused("supercalifragilisticexpialidocious " * 1000)
        assert "exceeds the available context size" in error.message, error.message
        assert isinstance(error.body, dict) and error.body.get("n_ctx") == 2048, error.body

    with check("real: a prompt of more words than the window has tokens is refused before it is sent"):
        error = refused(long_prompt(0, 5000))
        assert "holds 2048 tokens" in error.message and error.code == "context_overflow", error.message
        assert error.response.headers["x-outrigger-attempts"] == "0", error.response.headers

    for name, path, body in (
        ("an unknown path", "/v1/no/such%20path?a=%5B%5D", None),
        ("a request the model refuses", "/v1/chat/completions", b'{"model":"smollm2","messages":"none"}'),
    ):
        with check(f"real: the answer to {name} passes byte for byte"):
            headers = {"content-type": "application/json"}
            direct = fetch(MODEL + path, data=body, headers=headers)
            passed = fetch(root + path, data=body, headers=headers)
            assert direct[0] >= 400, direct
            equal(passed[0], direct[0], "status")
            equal(passed[2], direct[2], "body")
            equal(passed[1]["content-type"], direct[1]["content-type"], "content-type")


def curl(*arguments: str) -> tuple[int, dict]:
    command = ["curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", *arguments]
    body, _, status = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rpartition("\n")
    return int(status), json.loads(body)


def edges(root: str) -> None:
    url = f"{root}/v1/chat/completions"
    with check("real: invalid JSON is a 400 that says so"):
        status, body = curl(url, "-d", '{"model": "smollm2", "messages": [', "-H", "content-type: application/json")
        equal(status, 400, "status")
        assert body["error"]["message"], body
        if THROUGH:
            equal(body["error"]["code"], "bad_request", "error.code")
    if THROUGH:
        with check("real: an unknown x-outrigger- header is a 400 that names it"):
            asked = json.dumps(ask("Hi.", max_tokens=2))
            status, body = curl(url, "-d", asked, "-H", "x-outrigger-retires: 0", "-H", "content-type: application/json")
            equal(status, 400, "status")
            equal(body["error"]["code"], "bad_request", "error.code")
            assert "x-outrigger-retires" in json.dumps(body), body


def other_surfaces(client: openai.OpenAI, root: str) -> None:
    with check("real: the model is listed"):
        assert NAME in [model.id for model in client.models.list()], "not in /v1/models"
    with check("real: a Responses API stream completes"):
        events = [event.type for event in client.responses.create(model=NAME, input="Hi.", max_output_tokens=16, stream=True)]
        equal(events[0], "response.created", "first event")
        assert events[-1] in ("response.completed", "response.incomplete"), events[-1]
    messages = anthropic.Anthropic(base_url=root, api_key="none", max_retries=0).messages
    asked = {"model": NAME, "max_tokens": 16, "messages": [{"role": "user", "content": "Hi."}]}
    with check("real: the Anthropic SDK gets a message"):
        assert messages.create(**asked).content[0].text
    with check("real: the Anthropic SDK gets a stream"):
        with messages.stream(**asked) as stream:
            assert "".join(stream.text_stream)
            assert stream.get_final_message().stop_reason


def told(client: openai.OpenAI) -> tuple[str, str | None, bool]:
    """What a greedy stream says, why it ended, and whether it was gone on with."""
    text, finish, continued = "", None, False
    asked = ask("Tell a short story about a fox and a river.", max_tokens=48, temperature=0, stream=True)
    for chunk in client.chat.completions.create(**asked):
        continued = continued or bool(getattr(chunk, "outrigger", None))
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish, continued


def rescue(between: Relay, folder: str) -> None:
    config = Path(folder) / "rescue.yaml"
    config.write_text(
        f"version: 1\nendpoints:\n  - name: model\n    url: {between.url}/v1\n"
        "defaults:\n  rescue: continue\n  retry: { budget: 100% }\n  breaker: { failure_rate: 100% }\n"
    )
    with gateway(config=str(config)) as through:
        client = openai.OpenAI(base_url=through.base, api_key="none", max_retries=0, timeout=60)
        whole, finish, _ = told(client)
        same, cuts = 0, range(1500, 11500, 900)
        for at in cuts:
            with check(f"real: a stream cut after {at} bytes is gone on with"):
                between.cut_after = at
                text, ended, continued = told(client)
                assert between.cut_after is None, "it was not cut"
                assert continued and ended == finish and text[:20] == whole[:20], (continued, ended, text)
                same += text == whole
        note(f"{same} of {len(cuts)} say what the uncut stream says")
        with check("real: every cut stream was counted as gone on with"):
            equal(through.metric("outrigger_attempts_total", kind="continuation", **{"class": "ok"}), len(cuts))


def node(base: str) -> None:
    if drivers := os.environ.get("NODE_DRIVERS"):
        environment = {**os.environ, "BASE_URL": base, "MODEL_URL": MODEL, "MODEL": NAME}
        with check("real: the Node driver comes to its end"):
            driver = ["node", f"{drivers}/model.mjs"]
            equal(subprocess.run(driver, env=environment, timeout=180).returncode, 0, "exit code")


def main() -> None:
    with relay(MODEL) as between, gateway(f"{between.url}/v1") if THROUGH else nullcontext() as through:
        root = through.root if through else between.url
        base = f"{root}/v1"
        client = openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=120)
        spent = Sum()
        chats(client, spent)
        streams(client, spent)
        tokens(through, spent)
        cancellations(base, between)
        refusals(client, root)
        edges(root)
        other_surfaces(client, root)
        if THROUGH:
            with tempfile.TemporaryDirectory() as folder:
                rescue(between, folder)
        node(base)
    done()


if __name__ == "__main__":
    main()
