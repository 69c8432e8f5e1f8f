// A real model, asked by the official Node SDK. Environment: BASE_URL (with /v1), MODEL_URL (the model's root), MODEL.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { check, done, note, sleep } from './report.mjs';

const { BASE_URL, MODEL_URL, MODEL } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: 'none', maxRetries: 0 });
const ask = (content, more) => ({ model: MODEL, messages: [{ role: 'user', content }], ...more });

async function busy() {
  const slots = await (await fetch(`${MODEL_URL}/slots`)).json();
  return slots.some((slot) => slot.is_processing);
}

await check('real, Node: a chat call answers', async () => {
  const answer = await client.chat.completions.create(ask('Say hi.', { max_tokens: 8 }));
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.usage.completion_tokens > 0);
});

await check('real, Node: a stream runs to its end', async () => {
  let [text, finish] = ['', null];
  for await (const chunk of await client.chat.completions.create(ask('Name animals.', { max_tokens: 16, stream: true }))) {
    text += chunk.choices[0]?.delta?.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  assert.ok(text);
  assert.ok(['stop', 'length'].includes(finish), finish);
});

await check('real, Node: a stream is aborted and the model is free within a second', async () => {
  const stream = await client.chat.completions.create(
    ask('Tell a very long story.', { max_tokens: 900, stream: true, ignore_eos: true }),
  );
  let chunks = 0;
  let left = 0;
  for await (const _ of stream) {
    chunks += 1;
    if (chunks === 3) {
      assert.ok(await busy(), 'the model is not at work');
      left = performance.now();
      stream.controller.abort();
      break;
    }
  }
  while (await busy()) {
    assert.ok(performance.now() - left < 1000, 'the model still works a second later');
    await sleep(10);
  }
  note(`idle after ${Math.round(performance.now() - left)} ms`);
});

done();
