// Talking to the server: the key, errors in words, event streams.

const ROOT = new URL("../", import.meta.url);
const PLACE = "rllm-key";

export const key = {
  get: () => sessionStorage.getItem(PLACE) ?? "",
  set: (value) => sessionStorage.setItem(PLACE, value),
  forget: () => sessionStorage.removeItem(PLACE),
};

// What went wrong, as a sentence for the person in front of the page.
export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }

  get wantsKey() {
    return this.status === 401;
  }
}

export async function call(path, { body, signal } = {}) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer.");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  let message = "";
  try {
    message = (await response.json()).error?.message ?? "";
  } catch {
    // not ours: a proxy's page, perhaps
  }
  message = sentence(message || `The server answered with status ${response.status}`);
  const later = Number(response.headers.get("retry-after"));
  if (later > 0) message += ` Try again in ${later} s.`;
  return new Problem(message, response.status);
}

export function sentence(text) {
  const clean = text.trim();
  return (clean[0] ?? "").toUpperCase() + clean.slice(1) + (/[.!?]$/.test(clean) ? "" : ".");
}

// The decoded data of every event until [DONE]. An error inside the stream is thrown.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Problem("The connection was cut in the middle of the answer.");
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const data = block.slice(6);
      if (data === "[DONE]") return;
      const item = JSON.parse(data);
      if (item.error) throw new Problem(sentence(item.error.message));
      yield item;
    }
  }
}
