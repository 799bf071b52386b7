// The playground: one conversation, or the same one with two models side by side.

import { Problem, call, events } from "./api.js";
import { $, make, options, say, show } from "./dom.js";
import { count, rate, seconds } from "./format.js";
import { mine } from "./lanes.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

// One model's half: what was said, and the answer that is under way.
class Side {
  #messages = [];

  constructor(letter) {
    this.letter = letter;
    this.element = make("t-side");
    this.log = this.element.querySelector(".log");
    $("sides").append(this.element);
  }

  name(model, isAlone) {
    this.model = model;
    this.isAlone = isAlone;
    say(this.element.querySelector("h3"), isAlone ? model : `${this.letter}  ${model}`);
    this.log.setAttribute("aria-label", `Conversation with ${model}`);
    this.element.dataset.letter = this.letter;
  }

  clear() {
    this.#messages = [];
    this.log.replaceChildren();
  }

  // Resolves to the figures of the answer; null where it was stopped or failed.
  async ask(text, system, sampling, signal) {
    this.#add("question", text);
    const answer = make("t-answer");
    this.log.append(answer);
    this.#scroll();
    this.#messages.push({ role: "user", content: text });
    const before = system ? [{ role: "system", content: system }] : [];
    const body = {
      model: this.model,
      messages: [...before, ...this.#messages],
      ...sampling,
      stream: true,
      stream_options: { include_usage: true },
    };
    const reader = new Reader(answer, () => this.#scroll());
    try {
      await reader.read(body, signal, this.isAlone ? "you" : this.letter);
    } catch (error) {
      reader.failed(error);
      if (error instanceof Problem && error.wantsKey) throw error;
      if (!(error instanceof Problem) && error.name !== "AbortError") throw error;
    }
    if (reader.text) this.#messages.push({ role: "assistant", content: reader.text });
    else this.#messages.pop();
    return reader.figures;
  }

  #add(kind, text) {
    const paragraph = document.createElement("p");
    paragraph.className = kind;
    paragraph.textContent = text;
    this.log.append(paragraph);
  }

  #scroll() {
    this.log.scrollTop = this.log.scrollHeight;
  }
}

// One streamed answer and its clock.
class Reader {
  text = "";
  figures = null;
  #first = null;
  #last = null;
  #usage = null;
  #finish = "";
  #degraded = "";
  #node = document.createTextNode("");
  #frame = 0;

  constructor(answer, onText) {
    this.element = answer;
    this.onText = onText;
    answer.dataset.state = "waiting";
    answer.querySelector(".text").append(this.#node);
    this.#say("waiting for the first token");
  }

  async read(body, signal, letter) {
    const started = performance.now();
    const response = await call("v1/chat/completions", { body, signal });
    mine.set(response.headers.get("x-request-id"), letter);
    this.#degraded = response.headers.get("x-rllm-degraded") ?? "";
    for await (const chunk of events(response)) {
      this.#usage = chunk.usage ?? this.#usage;
      const choice = chunk.choices[0];
      this.#finish = choice?.finish_reason ?? this.#finish;
      if (choice?.delta?.content) this.#heard(choice.delta.content, started);
    }
    this.#show();
    this.element.dataset.state = "done";
    this.#sum(started);
  }

  #heard(text, started) {
    this.#last = performance.now();
    this.#first ??= this.#last;
    this.text += text;
    this.element.dataset.state = "streaming";
    this.#say(`first token ${seconds((this.#first - started) / 1000)}, streaming`);
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#show());
  }

  // Once a frame, not once a token: thousands come in a second from a fast server.
  #show() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#node.appendData(this.text.slice(this.#node.length));
    this.onText();
  }

  #sum(started) {
    if (this.#first === null || !this.#usage) {
      this.#say("an empty answer");
      return;
    }
    const { completion_tokens: tokens, prompt_tokens: prompt, prompt_tokens_details: details } = this.#usage;
    const ttft = (this.#first - started) / 1000;
    const writing = (this.#last - this.#first) / 1000;
    const speed = tokens > 1 && writing > 0 ? (tokens - 1) / writing : null;
    this.figures = { ttft, speed, tokens };
    const facts = [
      `first token ${seconds(ttft)}`,
      `${rate(speed)} tok/s`,
      `${count(tokens)} tokens`,
      `prompt ${count(prompt)}${details?.cached_tokens ? `, ${count(details.cached_tokens)} reused` : ""}`,
      this.#finish === "length" ? "cut at max tokens" : "",
      this.#degraded && `degraded: ${this.#degraded}`,
    ];
    this.#say(facts.filter(Boolean).join(" · "));
  }

  failed(error) {
    const stopped = error.name === "AbortError";
    this.#show();
    this.element.dataset.state = stopped ? "stopped" : "failed";
    this.#say(stopped ? "stopped" : error.message);
  }

  #say(text) {
    say(this.element.querySelector(".figures"), text);
  }
}

export class Chat {
  #sides = [new Side("A"), new Side("B")];
  #running = null;

  // onNeedKey(message)
  constructor(onNeedKey) {
    this.onNeedKey = onNeedKey;
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#running) this.#send();
    });
    $("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      $("composer").requestSubmit();
    });
    $("stop").addEventListener("click", () => this.#running?.abort());
    $("clear").addEventListener("click", () => this.#clear());
    for (const id of ["compare", "model-a", "model-b"]) $(id).addEventListener("change", () => this.#arrange());
    this.#arrange();
  }

  // ids of the models there are
  offer(models) {
    const values = models.map((model) => [model, model]);
    options($("model-a"), values, models[0]);
    options($("model-b"), values, models[1] ?? models[0]);
    $("send").disabled = !models.length;
    this.#arrange();
  }

  #arrange() {
    const compares = $("compare").checked;
    $("model-b").disabled = !compares;
    show(this.#sides[1].element, compares);
    $("columns").dataset.compare = String(compares);
    this.#sides[0].name($("model-a").value, !compares);
    this.#sides[1].name($("model-b").value, false);
  }

  #clear() {
    this.#running?.abort();
    for (const side of this.#sides) side.clear();
    show($("comparison"), false);
    show($("play-error"), false);
    $("message").focus();
  }

  async #send() {
    const text = $("message").value.trim();
    if (!text) return;
    const sampling = {};
    for (const name of NUMBERS) if ($(name).value !== "") sampling[name] = Number($(name).value);
    const sides = this.#sides.slice(0, $("compare").checked ? 2 : 1);
    $("message").value = "";
    show($("comparison"), false);
    show($("play-error"), false);
    this.#busy(new AbortController());
    const { signal } = this.#running;
    const asked = sides.map((side) => side.ask(text, $("system").value.trim(), sampling, signal));
    const results = await Promise.allSettled(asked);
    this.#busy(null);
    const failed = results.find((result) => result.status === "rejected");
    if (failed) this.#complain(failed.reason, text);
    else if (results.length === 2) this.#compare(...results.map((result) => result.value));
  }

  #complain(error, text) {
    if (!$("message").value) $("message").value = text;
    if (error.wantsKey) {
      this.onNeedKey(error.message);
      return;
    }
    say($("play-error"), `Something is wrong with this page: ${error.message}`);
    show($("play-error"), true);
  }

  #busy(controller) {
    this.#running = controller;
    show($("send"), !controller);
    show($("stop"), Boolean(controller));
  }

  #compare(a, b) {
    if (!a || !b) return;
    const gap = Math.abs(a.ttft - b.ttft);
    const first = gap < 0.02 ? "both begin together" : `${a.ttft < b.ttft ? "A" : "B"} begins ${seconds(gap)} earlier`;
    say($("comparison"), `${this.#faster(a.speed, b.speed)}; ${first}. Measured at once, under the load of this moment.`);
    show($("comparison"), true);
  }

  #faster(a, b) {
    // an answer that came in one piece has no speed
    if (!a || !b) return "Too short to tell which writes faster";
    const [fast, slow] = a >= b ? ["A", "B"] : ["B", "A"];
    const ahead = Math.max(a, b) / Math.min(a, b);
    return ahead < 1.05 ? "Both write equally fast" : `${fast} writes ${ahead.toFixed(1)} × as fast as ${slow}`;
  }
}
