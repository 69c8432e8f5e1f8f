"""The same from the Anthropic side: what its official SDK makes of /v1/messages through the gateway."""

import anthropic

from openai_cases import sent
from report import equal
from servers import Gateway

CASES = {}


def case(name: str):
    def keep(function):
        CASES[f"Anthropic: {name}"] = function
        return function

    return keep


def messages(through: Gateway):
    return anthropic.Anthropic(base_url=through.root, api_key="none", timeout=30).messages


def ask(model: str) -> dict:
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "Say something short."}]}


def raised(kind, call):
    try:
        call()
    except anthropic.AnthropicError as error:
        assert isinstance(error, kind), f"{type(error).__name__} instead of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"it ended without {kind.__name__}")


@case("a message arrives")
def _(through, upstream):
    answer = messages(through).create(**ask("good"))
    assert answer.content[0].text and answer.stop_reason == "end_turn", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage


@case("a stream arrives with its event names")
def _(through, upstream):
    kinds = [event.type for event in messages(through).create(**ask("good"), stream=True)]
    equal((kinds[0], kinds[-1]), ("message_start", "message_stop"), "first and last event")
    assert "content_block_delta" in kinds, kinds


@case("the stream helper puts the message together")
def _(through, upstream):
    with messages(through).stream(**ask("good")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].text == text and final.stop_reason == "end_turn", final


for model, kind, statuses in (
    ("rate-limited", anthropic.RateLimitError, (429,)),
    ("overloaded", anthropic.InternalServerError, (503, 529)),
    ("broken", anthropic.InternalServerError, (500, 502)),
    ("bad-request", anthropic.BadRequestError, (400,)),
    ("not-found", anthropic.NotFoundError, (404,)),
    ("unauthorised", anthropic.AuthenticationError, (401,)),
):

    @case(f"{model} is a {kind.__name__}, once")
    def _(through, upstream, model=model, kind=kind, statuses=statuses):
        error = raised(kind, lambda: messages(through).create(**ask(model)))
        assert error.status_code in statuses, error.status_code
        equal(error.body["type"], "error", "the envelope's type")
        assert error.body["error"]["type"] and error.body["error"]["message"], error.body
        equal(through.metric("outrigger_calls_total"), 1, "calls the SDK made of one")
        assert sent(upstream) <= 4, f"{sent(upstream)} sends upstream"


@case("an error as the first event is a real status")
def _(through, upstream):
    error = raised(anthropic.APIStatusError, lambda: messages(through).create(**ask("error-first-native"), stream=True))
    assert error.status_code >= 500, error.status_code


for model in ("cut-reset", "cut-close", "cut-eof", "error-later-native"):

    @case(f"a stream with {model} raises and never ends cleanly")
    def _(through, upstream, model=model):
        kinds = []

        def read() -> None:
            for event in messages(through).create(**ask(model), stream=True):
                kinds.append(event.type)

        raised(anthropic.APIError, read)
        assert "content_block_delta" in kinds, "nothing of the good beginning arrived"
        assert "message_stop" not in kinds, "a cut answer was called complete"
