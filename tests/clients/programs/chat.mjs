// The official client in Node, and unchanged in a browser: chat(OpenAI, baseURL)
export async function chat(OpenAI, baseURL) {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, dangerouslyAllowBrowser: true });
  const history = [{ role: "user", content: "Hello" }];
  const body = { model: "tiny", messages: history, max_tokens: 8 };
  const first = await client.chat.completions.create(body);
  history.push(first.choices[0].message, { role: "user", content: "And again?" });
  let usage = null;
  for await (const chunk of await client.chat.completions.create({
    ...body, stream: true, stream_options: { include_usage: true },
  })) usage = chunk.usage ?? usage;
  check(usage.completion_tokens > 0, "usage");
  const whole = await client.chat.completions.stream(body).finalChatCompletion();
  check(["stop", "length"].includes(whole.choices[0].finish_reason), "a stream put together");
  check((await client.models.list()).data[0].id === "tiny", "models");
  const text = await client.completions.create({ model: "tiny", prompt: "Once", max_tokens: 8, logprobs: 1 });
  check(text.choices[0].logprobs.tokens.length > 0, "logprobs");
  const error = await client.chat.completions.create({ ...body, model: "none" }).catch((error) => error);
  check(error.status === 404 && error.code === "model_not_found", "an unknown model");
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}
