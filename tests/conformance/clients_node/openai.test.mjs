// The official `openai` package for JavaScript against a running server: chat, streams, tools, schemas, errors.

import assert from 'node:assert/strict';
import test from 'node:test';

import OpenAI, { BadRequestError, NotFoundError } from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({ baseURL: `${process.env.CUPOLA_URL}/v1`, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Name three colours.' }];
const asked = { model: 'model', messages, max_tokens: 24, temperature: 0 };
const add = {
  type: 'object',
  properties: { a: { type: 'integer', minimum: 0, maximum: 9 }, b: { type: 'integer', minimum: 0, maximum: 9 } },
  required: ['a', 'b'],
  additionalProperties: false,
};

test('a chat', async () => {
  const answer = await client.chat.completions.create(asked);
  assert.equal(answer.object, 'chat.completion');
  assert.ok(answer.choices[0].message.content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a stream says the same, in order', async () => {
  const whole = await client.chat.completions.create(asked);
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
  assert.equal(chunks.at(-2).choices[0].finish_reason, whole.choices[0].finish_reason);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
  assert.equal(text, whole.choices[0].message.content);
});

test('the stream helper', async () => {
  // An answer of seconds: a server gives a reader that is late all that piled up as one part.
  const runner = client.chat.completions.stream({ ...asked, max_tokens: 400, ignore_eos: true });
  const deltas = [];
  runner.on('content', (delta) => deltas.push(delta));
  const final = await runner.finalChatCompletion().catch((error) => {
    assert.match(String(error), /length/);
    return undefined;
  });
  assert.ok(deltas.length > 1);
  if (final) assert.equal(deltas.join(''), final.choices[0].message.content);
});

test('parse with zod', async () => {
  const Person = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(130) });
  const answer = await client.chat.completions.parse({
    ...asked,
    max_tokens: 80,
    response_format: zodResponseFormat(Person, 'person'),
  });
  assert.equal(typeof answer.choices[0].message.parsed.age, 'number');
});

test('a required tool is called, whole and streamed alike', async () => {
  const tools = [{ type: 'function', function: { name: 'add', parameters: add, strict: true } }];
  const request = { ...asked, max_tokens: 80, tools, tool_choice: 'required', parallel_tool_calls: false };
  const whole = await client.chat.completions.create(request);
  const [call] = whole.choices[0].message.tool_calls;
  assert.equal(call.function.name, 'add');
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['a', 'b']);
  const parts = [];
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
    parts.push(...(chunk.choices[0]?.delta.tool_calls ?? []));
  }
  assert.equal(parts[0].function.name, 'add');
  assert.ok(parts[0].id);
  const streamed = parts.map((part) => part.function.arguments ?? '').join('');
  assert.equal(streamed, call.function.arguments);
});

test('the tool runner goes through a call to an answer', async () => {
  let called = 0;
  const tool = {
    type: 'function',
    function: {
      name: 'add',
      description: 'Adds two numbers.',
      parameters: add,
      strict: true,
      parse: JSON.parse,
      function: ({ a, b }) => {
        called += 1;
        return String(a + b);
      },
    },
  };
  const runner = client.chat.completions.runTools(
    { ...asked, max_tokens: 80, tools: [tool], tool_choice: { type: 'function', function: { name: 'add' } } },
    { maxChatCompletions: 2 },
  );
  await runner.done().catch((error) => assert.match(String(error), /length|maximum|finish/i));
  assert.ok(called >= 1);
});

test('a completion', async () => {
  const answer = await client.completions.create({ model: 'model', prompt: 'The sea is', max_tokens: 8, temperature: 0 });
  assert.ok(answer.choices[0].text);
});

test('a response and its events in order', async () => {
  const kinds = [];
  let sequence = -1;
  const request = { model: 'model', input: 'Hello', max_output_tokens: 16, temperature: 0 };
  const stream = await client.responses.create({ ...request, stream: true });
  for await (const event of stream) {
    assert.equal(event.sequence_number, (sequence += 1));
    kinds.push(event.type);
  }
  assert.deepEqual(kinds.slice(0, 2), ['response.created', 'response.in_progress']);
  assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
});

test('models', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes('model'));
});

test('errors have their class', async () => {
  await assert.rejects(client.chat.completions.create({ ...asked, model: 'other' }), NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...asked, temperature: 9 }), (error) => {
    assert.ok(error instanceof BadRequestError);
    assert.equal(error.param, 'temperature');
    return true;
  });
});
