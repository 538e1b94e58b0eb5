// Runs OpenAI's client for Node against a running service: `node client.mjs MODEL THINKER`, with OPENAI_BASE_URL and OPENAI_API_KEY.
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
const inputs = [];
for await (const item of client.responses.inputItems.list(response.id)) inputs.push(item);
assert.equal(inputs.length, 1);
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

// The other model thinks "Which city?", answers "Let me see." and calls get_weather.
const asking = { model: process.argv[3], messages, temperature: 0 };
const schema = {
  type: "object",
  properties: { city: { enum: ["Oslo", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", parameters: schema, strict: true } }];
const calling = (await client.chat.completions.create({ ...asking, tools })).choices[0];
assert.equal(calling.finish_reason, "tool_calls");
assert.equal(calling.message.reasoning_content, "Which city?");
assert.equal(calling.message.content, "Let me see.");
const call = calling.message.tool_calls[0];
assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
const streamed = await client.chat.completions.stream({ ...asking, tools }).finalChatCompletion();
assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
const told = [...messages, calling.message, { role: "tool", tool_call_id: call.id, content: "sunny" }];
assert.equal((await client.chat.completions.create({ ...asking, messages: told })).choices.length, 1);
await assert.rejects(
  client.chat.completions.create({ ...asking, messages: [...messages, told.at(-1)] }),
  (error) => error instanceof BadRequestError && error.param === "messages[1].role",
);
const flat = [{ type: "function", name: "get_weather", parameters: schema, strict: true }];
const items = await client.responses.create({ ...asking, messages: undefined, input: "hello", tools: flat });
assert.deepEqual(
  items.output.map((item) => item.type),
  ["reasoning", "message", "function_call"],
);
const result = { type: "function_call_output", call_id: items.output[2].call_id, output: "sunny" };
const further = { model: asking.model, temperature: 0, input: [result], previous_response_id: items.id };
assert.equal((await client.responses.create(further)).previous_response_id, items.id);

await assert.rejects(
  client.chat.completions.create({ ...few, tools: [{ type: "function", function: { name: "f" } }] }),
  (error) => error instanceof BadRequestError && error.param === "tools" && error.code === "unsupported_parameter",
);
await assert.rejects(
  client.chat.completions.create({ ...few, model: "nobody" }),
  (error) => error instanceof NotFoundError && error.code === "model_not_found",
);
console.log(`openai for Node: everything is as it should be (${jobs.length} jobs, ${files.length} files)`);
