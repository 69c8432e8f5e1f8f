"""What the official OpenAI SDK makes of each failure. The cases' models are those of scenario.yaml.

Clients have the SDK's own defaults, its two retries included, unless a case says otherwise: that is how they come.
"""

import json

import openai

from report import equal
from servers import Gateway, fetch

CASES = {}

SENDS_AT_MOST = 4


def case(name: str):
    def keep(function):
        CASES[name] = function
        return function

    return keep


def client(through: Gateway, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=through.base, api_key="none", timeout=30, **options)


def ask(model: str, **more) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": "Say something short."}], **more}


def sent(upstream: str) -> int:
    """Calls the stand-in has seen."""
    return json.loads(fetch(f"{upstream}/_mock/stats")[2])["calls"]


def raised(kind, call):
    """The error of exactly this kind that a call raises."""
    try:
        call()
    except openai.OpenAIError as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"it ended without {kind.__name__}")


def refused(through: Gateway, upstream: str, model: str, kind, status: int, code: str | None, sends: range) -> None:
    """One call fails once: the class the SDK raises, the status, the code, and no retries on top of ours."""
    error = raised(kind, lambda: client(through).chat.completions.create(**ask(model)))
    equal(error.status_code, status, "status")
    if code:
        equal(error.code, code, "error.code")
        assert error.response.headers.get("x-outrigger-id"), "no x-outrigger-id"
        assert error.body["outrigger"]["attempts"], error.body
    equal(through.metric("outrigger_calls_total"), 1, "calls the SDK made of one")
    assert sent(upstream) in sends, f"{sent(upstream)} sends upstream"
    if status in (429, 503):
        assert error.response.headers.get("retry-after"), f"a {status} without retry-after"


@case("a rate limit is a RateLimitError, once")
def _(through, upstream):
    refused(through, upstream, "rate-limited", openai.RateLimitError, 429, "rate_limited", range(1, SENDS_AT_MOST + 1))


@case("an overloaded server is an InternalServerError, once")
def _(through, upstream):
    refused(
        through, upstream, "overloaded", openai.InternalServerError, 503, "upstream_overloaded", range(1, SENDS_AT_MOST + 1)
    )


@case("a broken server is an InternalServerError, once")
def _(through, upstream):
    refused(through, upstream, "broken", openai.InternalServerError, 502, "upstream_500", range(1, SENDS_AT_MOST + 1))


# With `--upstream` alone the key that travels is the caller's own, so it is the caller who has to read that it is refused.
@case("the caller's own refused key is the caller's AuthenticationError, sent once")
def _(through, upstream):
    refused(through, upstream, "unauthorised", openai.AuthenticationError, 401, None, range(1, 2))


@case("a bad request is a BadRequestError in the upstream's own words, sent once")
def _(through, upstream):
    refused(through, upstream, "bad-request", openai.BadRequestError, 400, None, range(1, 2))


@case("an unknown model upstream is a NotFoundError, sent once")
def _(through, upstream):
    refused(through, upstream, "not-found", openai.NotFoundError, 404, None, range(1, 2))


@case("a prompt over the window is a BadRequestError, sent once")
def _(through, upstream):
    refused(through, upstream, "overflow", openai.BadRequestError, 400, None, range(1, 2))


@case("an error object under a 200 is raised")
def _(through, upstream):
    error = raised(
        openai.InternalServerError, lambda: client(through).chat.completions.create(**ask("error-in-200"))
    )
    assert error.status_code >= 500 and error.code in ("inband_error", "upstream_500"), (error.status_code, error.code)
    equal(through.metric("outrigger_calls_total"), 1, "calls the SDK made of one")


@case("an error as a stream's first event is a real status")
def _(through, upstream):
    error = raised(
        openai.InternalServerError,
        lambda: client(through).chat.completions.create(**ask("error-first", stream=True)),
    )
    assert error.status_code >= 500, error.status_code
    equal(through.metric("outrigger_calls_total"), 1, "calls the SDK made of one")


@case("one failure is retried and nothing shows but the headers")
def _(through, upstream):
    raw = client(through, max_retries=0).chat.completions.with_raw_response.create(**ask("broken-once"))
    assert raw.parse().choices[0].message.content
    equal(raw.headers["x-outrigger-outcome"], "retried", "outcome")
    equal(raw.headers["x-outrigger-attempts"], "2", "attempts")
    assert "class=upstream_500" in raw.headers["x-outrigger-trail"], raw.headers["x-outrigger-trail"]
    equal(sent(upstream), 2, "sends upstream")


@case("x-outrigger-retries: 0 is one send")
def _(through, upstream):
    asked = ask("broken", extra_headers={"x-outrigger-retries": "0"})
    raised(openai.InternalServerError, lambda: client(through).chat.completions.create(**asked))
    equal(sent(upstream), 1, "sends upstream")


@case("an unknown x-outrigger- header is a BadRequestError")
def _(through, upstream):
    asked = ask("good", extra_headers={"x-outrigger-retires": "0"})
    error = raised(openai.BadRequestError, lambda: client(through).chat.completions.create(**asked))
    equal(error.code, "bad_request", "error.code")
    equal(sent(upstream), 0, "sends upstream")


def broken_stream(through: Gateway, model: str, code: str | None) -> None:
    """A stream that began well must end in an APIError: a clean end would pass a part for the whole."""
    text = []

    def read() -> None:
        for chunk in client(through).chat.completions.create(**ask(model, stream=True)):
            for choice in chunk.choices:
                text.append(choice.delta.content or "")

    error = raised(openai.APIError, read)
    assert "".join(text), "nothing of the good beginning arrived"
    if code:
        equal(error.code, code, "error.code")


for cut in ("reset", "close", "eof"):

    @case(f"a stream cut by {cut} raises and never ends cleanly")
    def _(through, upstream, cut=cut):
        broken_stream(through, f"cut-{cut}", "stream_truncated")


@case("an error in the middle of a stream raises")
def _(through, upstream):
    broken_stream(through, "error-later", None)


for framing in ("crlf", "one-byte"):

    @case(f"a stream framed by {framing} arrives whole")
    def _(through, upstream, framing=framing):
        chunks = list(client(through).chat.completions.create(**ask(framing, stream=True)))
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        equal(finishes, ["stop"], "finish reasons")


@case("a streamed tool call arrives whole")
def _(through, upstream):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    name, arguments = "", ""
    for chunk in client(through).chat.completions.create(**ask("tools", stream=True, tools=[tool])):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    equal(name, "weather", "tool")
    assert isinstance(json.loads(arguments)["city"], str), arguments


@case("embeddings arrive as numbers from the SDK's base64")
def _(through, upstream):
    answer = client(through).embeddings.create(model="good", input=["one", "two"])
    equal([len(one.embedding) for one in answer.data], [8, 8], "dimensions")
    assert all(isinstance(number, float) for number in answer.data[0].embedding)


@case("a Responses API stream completes")
def _(through, upstream):
    events = [event.type for event in client(through).responses.create(model="good", input="Hi.", stream=True)]
    equal((events[0], events[-1]), ("response.created", "response.completed"), "first and last event")
    assert "response.output_text.delta" in events, events


@case("a cut Responses API stream never ends cleanly")
def _(through, upstream):
    events = []

    def read() -> None:
        for event in client(through).responses.create(model="cut-close", input="Hi.", stream=True):
            events.append(event.type)

    # Version 3 raises on an error event; where it hands the event over instead, it must at least be there.
    try:
        read()
    except openai.APIError as error:
        assert type(error) is openai.APIError, f"{type(error).__name__}: {error}"
    else:
        assert events[-1] in ("error", "response.failed"), events[-1]
    assert "response.completed" not in events, "a cut answer was called complete"


@case("the models are listed")
def _(through, upstream):
    names = [model.id for model in client(through).models.list()]
    assert "mock-small" in names, names


@case("members the gateway does not know are no error")
def _(through, upstream):
    asked = ask("good", extra_body={"a_new_member": {"deep": [1, 2.50, "é"]}})
    assert client(through).chat.completions.create(**asked).choices[0].finish_reason == "stop"
