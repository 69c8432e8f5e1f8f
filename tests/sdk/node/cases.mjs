// What the official Node SDK makes of each failure. Environment: BASE_URL (with /v1), MOCK_URL, CASE.
// With --list it prints the names of its cases, one in a line.

import assert from 'node:assert/strict';
import OpenAI, { APIError, BadRequestError, InternalServerError, RateLimitError } from 'openai';
import { check, done } from './report.mjs';

const { BASE_URL, MOCK_URL, CASE } = process.env;
const SENDS_AT_MOST = 4;

// The SDK's own defaults, its two retries included: that is how clients come.
const client = () => new OpenAI({ baseURL: BASE_URL, apiKey: 'none', timeout: 30_000 });
const ask = (model, more) => ({ model, messages: [{ role: 'user', content: 'Say something short.' }], ...more });
const sent = async () => (await (await fetch(`${MOCK_URL}/_mock/stats`)).json()).calls;

/** The error of exactly this class that `call` rejects with. */
async function raised(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, `${error.constructor.name}: ${error.message}`);
    return error;
  }
  throw new Error(`it ended without ${kind.name}`);
}

async function read(model) {
  let [text, finish] = ['', null];
  for await (const chunk of await client().chat.completions.create(ask(model, { stream: true }))) {
    text += chunk.choices[0]?.delta?.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  return { text, finish };
}

const brokenStream = (model) => async () => {
  const error = await raised(APIError, () => read(model));
  assert.ok(error.message);
};

const refused = (model, kind, status) => async () => {
  const error = await raised(kind, () => client().chat.completions.create(ask(model)));
  assert.equal(error.status, status);
  if (status !== 400) {
    assert.equal(error.headers.get('x-should-retry'), 'false', 'the SDK would try again on top of us');
  }
  const sends = await sent();
  assert.ok(sends >= 1 && sends <= SENDS_AT_MOST, `${sends} sends upstream`);
};

const cases = {
  'a chat call answers': async () => {
    const { data, response } = await client().chat.completions.create(ask('good')).withResponse();
    assert.ok(data.choices[0].message.content);
    assert.equal(response.headers.get('x-outrigger-outcome'), 'ok');
  },
  'a stream arrives whole': async () => {
    const { text, finish } = await read('good');
    assert.ok(text);
    assert.equal(finish, 'stop');
  },
  'a rate limit is a RateLimitError, once': refused('rate-limited', RateLimitError, 429),
  'a broken server is an InternalServerError, once': refused('broken', InternalServerError, 502),
  'a bad request is a BadRequestError': refused('bad-request', BadRequestError, 400),
  'an error object under a 200 is raised': async () => {
    const error = await raised(InternalServerError, () => client().chat.completions.create(ask('error-in-200')));
    assert.ok(error.status >= 500, `${error.status}`);
  },
  'an error as a first event is a real status': async () => {
    const error = await raised(InternalServerError, () => read('error-first'));
    assert.ok(error.status >= 500, `${error.status}`);
  },
  'an error in the middle of a stream raises': brokenStream('error-later'),
  'a stream cut by reset raises': brokenStream('cut-reset'),
  'a stream cut by close raises': brokenStream('cut-close'),
  'a stream cut by eof raises': brokenStream('cut-eof'),
  'embeddings arrive as numbers': async () => {
    const answer = await client().embeddings.create({ model: 'good', input: 'one' });
    assert.equal(answer.data[0].embedding.length, 8);
    assert.equal(typeof answer.data[0].embedding[0], 'number');
  },
  'a Responses API stream completes': async () => {
    const kinds = [];
    for await (const event of await client().responses.create({ model: 'good', input: 'Hi.', stream: true })) {
      kinds.push(event.type);
    }
    assert.equal(kinds.at(-1), 'response.completed');
  },
  'a stream is aborted': async () => {
    const stream = await client().chat.completions.create(ask('good', { stream: true }));
    for await (const _ of stream) {
      stream.controller.abort();
    }
    assert.ok(stream.controller.signal.aborted);
  },
};

if (process.argv.includes('--list')) {
  console.log(Object.keys(cases).join('\n'));
} else {
  await check(`sdk, Node: ${CASE}`, cases[CASE]);
}
done();
