// Runs OpenAI's client for Node against a running service: `node client.mjs MODEL`, with OPENAI_BASE_URL and OPENAI_API_KEY.
// It stops with an exception, and a status other than 0, at the first answer that is not what it should be.

import assert from "node:assert/strict";
import OpenAI, { BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = process.argv[2];
const messages = [{ role: "user", content: "hello" }];
const few = { model, messages, max_completion_tokens: 12, seed: 1 };

const chat = await client.chat.completions.create({ ...few, n: 2, logprobs: true, store: true });
assert.equal(chat.choices.length, 2);
assert.ok(chat.usage.total_tokens > chat.usage.prompt_tokens);
assert.equal(chat.choices[0].logprobs.content.map((one) => one.token).join(""), chat.choices[0].message.content);
assert.equal((await client.chat.completions.retrieve(chat.id)).id, chat.id);
assert.equal((await client.chat.completions.delete(chat.id)).deleted, true);

let text = "";
let usage = null;
for await (const chunk of await client.chat.completions.create({
  ...few,
  stream: true,
  stream_options: { include_usage: true },
})) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, (await client.chat.completions.create(few)).choices[0].message.content);
assert.ok(usage.completion_tokens > 0);

const runner = client.chat.completions.stream(few);
assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);

const abandoned = await client.chat.completions.create({ ...few, max_completion_tokens: 200, stream: true });
for await (const _ of abandoned) break; // leaving the loop closes the connection

const completion = await client.completions.create({ model, prompt: "Once", max_tokens: 5, echo: true });
assert.ok(completion.choices[0].text.startsWith("Once"), JSON.stringify(completion));

const response = await client.responses.create({ model, input: "hello", max_output_tokens: 16 });
assert.equal(typeof response.output_text, "string");
const next = { model, input: "more", max_output_tokens: 16, previous_response_id: response.id };
const kinds = [];
for await (const event of await client.responses.create({ ...next, stream: true })) kinds.push(event.type);
assert.equal(kinds[0], "response.created");
assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
const items = [];
for await (const item of client.responses.inputItems.list(response.id)) items.push(item);
assert.equal(items.length, 1);
assert.equal((await client.responses.retrieve(response.id)).id, response.id);
await client.responses.delete(response.id);
await assert.rejects(client.responses.retrieve(response.id), NotFoundError);

const row = '{"messages": [{"role": "user", "content": "Say a"}], "answer": "a"}\n';
const file = await client.files.create({ file: new File([row.repeat(10)], "train.jsonl"), purpose: "fine-tune" });
const files = [];
for await (const one of client.files.list()) files.push(one.id);
assert.ok(files.includes(file.id));
const jobs = [];
for await (const job of client.fineTuning.jobs.list()) jobs.push(job.id);
assert.ok((await client.models.list()).data.some((one) => one.id === model));

await assert.rejects(
  client.chat.completions.create({ ...few, tools: [{ type: "function", function: { name: "f" } }] }),
  (error) => error instanceof BadRequestError && error.param === "tools" && error.code === "unsupported_parameter",
);
await assert.rejects(
  client.chat.completions.create({ ...few, model: "nobody" }),
  (error) => error instanceof NotFoundError && error.code === "model_not_found",
);
console.log(`openai for Node: everything is as it should be (${jobs.length} jobs, ${files.length} files)`);
