// One instance: a lane per slot, with who held it lately and what it is doing now.

import { $, badges, canvas, colour, make, say, show } from "./dom.js";
import { count, percent, seconds } from "./format.js";

const RUNNING = new Set(["prefill", "decode", "preempted"]);
const WIDE = 340;

// Requests of this page's playground, by request id: the letter that marks them.
export const mine = new Map();

function letterOf(requestId) {
  for (const [id, letter] of mine) if (requestId.startsWith(`${id}.`)) return letter;
  return null;
}

// Which lane a request is drawn in. Split: its sequence id is the slot. Unified: ids outnumber slots, so each
// request gets the first lane that is free when it is seen first, and keeps it.
class Places {
  #lane = new Map();

  // Entries by lane, oldest first.
  arrange(entries, isSplit) {
    const rows = [];
    const put = (lane, entry) => (rows[lane] ??= []).push(entry);
    const known = (entry) => this.#lane.get(entry.request_id);
    if (isSplit) {
      for (const entry of entries) put(entry.seq, entry);
    } else {
      for (const entry of entries) if (known(entry) !== undefined) put(known(entry), entry);
      for (const entry of entries.filter((entry) => known(entry) === undefined)) {
        let lane = 0;
        while (rows[lane]?.some((other) => overlap(entry, other))) lane += 1;
        put(lane, entry);
        this.#lane.set(entry.request_id, lane);
      }
      const present = new Set(entries.map((entry) => entry.request_id));
      for (const name of this.#lane.keys()) if (!present.has(name)) this.#lane.delete(name);
    }
    return Array.from(rows, (row) => (row ?? []).sort((a, b) => a.admitted_at - b.admitted_at));
  }
}

// Ends are noted a moment after they happened; a lane is handed on within that moment.
const HANDOVER_S = 0.15;

function overlap(a, b) {
  const end = (entry) => (entry.ended_at ?? Infinity) - HANDOVER_S;
  return a.admitted_at < end(b) && b.admitted_at < end(a);
}

export class Panel {
  #lanes = [];
  #places = new Places();

  constructor(root) {
    this.element = make("t-panel");
    this.list = this.element.querySelector(".lanes");
    root.append(this.element);
  }

  update(model, instance, spans, now) {
    const find = (selector) => this.element.querySelector(selector);
    this.element.dataset.state = instance.state;
    say(find("h3"), instance.name);
    say(find(".what"), [instance.description, instance.device].filter(Boolean).join(" · "));
    badges(find("header .badges"), stateBadges(model, instance));
    const running = instance.sequences.filter((sequence) => RUNNING.has(sequence.phase));
    const active = running.filter((sequence) => sequence.phase !== "preempted");
    meter(find(".slots"), active.length, instance.slots, `${active.length} of ${instance.slots}`);
    meter(find(".kv"), instance.kv_used, instance.kv_cells, percent(instance.kv_used / (instance.kv_cells || 1)));
    say(find(".queue"), queueText(instance));
    find(".queue").dataset.waits = String(instance.waiting > 0);
    this.#draw(instance, spans, running, now);
  }

  #draw(instance, spans, running, now) {
    const isSplit = !instance.kv_unified;
    const over = new Set(spans.filter((span) => span.finish !== "lost").map((span) => span.request_id));
    const live = running
      .filter((sequence) => !over.has(sequence.request_id)) // a snapshot may be older than an end
      .map((sequence) => ({ ...sequence, ended_at: null }));
    const rows = this.#places.arrange([...spans, ...live], isSplit);
    const idle = instance.sequences.filter((sequence) => sequence.phase === "idle");
    const number = Math.max(instance.slots, rows.length);
    while (this.#lanes.length < number) this.#lanes.push(new Lane(this.list, this.#lanes.length));
    while (this.#lanes.length > number) this.#lanes.pop().element.remove();
    const width = this.#lanes[0]?.canvas.clientWidth ?? 0;
    const window_s = width >= WIDE ? 60 : 30;
    say(this.element.querySelector(".axis .from"), `${window_s} s ago`);
    for (const [index, lane] of this.#lanes.entries()) {
      const entries = rows[index] ?? [];
      const isTaken = entries.some((entry) => entry.ended_at === null);
      const kept = isSplit ? idle.find((sequence) => sequence.seq === index) : isTaken ? null : idle.pop();
      lane.update(entries, kept ?? null, { now, window_s, instance });
    }
  }
}

function stateBadges(model, instance) {
  const breaker = instance.breaker.replace("_", "-");
  const again = instance.breaker === "open" ? `, tries again in ${seconds(instance.breaker_reopens_s)}` : "";
  return [
    { text: instance.state, tone: instance.state === "ready" ? "ok" : "bad" },
    { text: `breaker ${breaker}${again}`, tone: instance.breaker === "closed" ? "calm" : "bad" },
    instance.restarts > 0 && { text: `${instance.restarts} restart${instance.restarts > 1 ? "s" : ""}`, tone: "warn" },
    model.degradation_level > 0 && { text: `level ${model.degradation_level}: ${model.degradation}`, tone: "warn" },
    instance.snapshot_age_s > 2 && { text: `as of ${seconds(instance.snapshot_age_s)} ago`, tone: "warn" },
  ];
}

function queueText({ waiting, oldest_wait_s: oldest }) {
  return waiting ? `${count(waiting)} waiting, the first for ${seconds(oldest)}` : "nobody waits";
}

function meter(element, value, most, text) {
  const bar = element.querySelector(".bar");
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", String(most));
  bar.setAttribute("aria-valuenow", String(value));
  bar.firstElementChild.style.width = `${most ? Math.min(100, (100 * value) / most) : 0}%`;
  say(element.querySelector("b"), text);
}

class Lane {
  #drawn = [];

  constructor(list, index) {
    this.element = make("t-lane");
    this.canvas = this.element.querySelector("canvas");
    say(this.element.querySelector(".no"), String(index));
    list.append(this.element);
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => show($("tip"), false));
  }

  update(entries, kept, { now, window_s, instance }) {
    const current = entries.findLast((entry) => entry.ended_at === null) ?? null;
    const phase = current?.phase ?? (kept ? "idle" : "free");
    this.element.dataset.phase = phase;
    say(this.element.querySelector(".says"), currentText(current, kept));
    say(this.element.querySelector(".more"), current?.cached_tokens ? `${count(current.cached_tokens)} reused` : "");
    this.#context(current, kept, instance.ctx_per_slot);
    this.#draw(entries, now, window_s);
  }

  // How the slot's context is filled.
  #context(current, kept, size) {
    const cached = current ? Math.min(current.cached_tokens, current.computed_tokens) : 0;
    const prompt = current ? Math.min(current.prompt_tokens, current.computed_tokens) - cached : 0;
    const parts = {
      reused: cached,
      prefill: prompt,
      decode: current ? Math.max(0, current.computed_tokens - cached - prompt) : 0,
      kept: current || !kept ? 0 : kept.computed_tokens,
    };
    for (const [name, tokens] of Object.entries(parts)) {
      this.element.querySelector(`.context .${name}`).style.width = `${(100 * tokens) / (size || 1)}%`;
    }
  }

  #draw(entries, now, window_s) {
    const { context, width, height } = canvas(this.canvas);
    const x = (time) => width - ((now - time) / window_s) * width;
    this.#drawn = [];
    for (const entry of entries) {
      const end = entry.ended_at ?? now;
      if (x(end) < 0) continue;
      const left = Math.max(-2, x(entry.admitted_at));
      const right = Math.max(left + 2, x(end) - (entry.ended_at === null ? 0 : 1));
      const first = Math.min(right, entry.first_token_at === null ? right : Math.max(left, x(entry.first_token_at)));
      this.#drawn.push({ entry, left, right });
      bar(context, { entry, left, first, right, height });
    }
  }

  #point(event) {
    const hit = this.#drawn.find(({ left, right }) => event.offsetX >= left - 1 && event.offsetX <= right + 1);
    const tip = $("tip");
    show(tip, Boolean(hit));
    if (!hit) return;
    say(tip, describe(hit.entry));
    const right = Math.max(8, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8));
    tip.style.transform = `translate(${right}px, ${event.clientY + 16}px)`;
  }
}

function bar(context, { entry, left, first, right, height }) {
  const letter = letterOf(entry.request_id);
  context.fillStyle = colour("prefill");
  context.fillRect(left, 0, Math.max(entry.first_token_at === null ? 2 : 1.5, first - left), height);
  if (entry.first_token_at !== null) {
    context.fillStyle = colour("decode");
    context.fillRect(Math.max(first, left + 1.5), 0, Math.max(0.5, right - Math.max(first, left + 1.5)), height);
  }
  if (entry.cached_tokens > 0) {
    context.fillStyle = colour("reused");
    context.fillRect(left, height - 4, Math.max(4, Math.min(right - left, 10)), 4);
  }
  if (["cancelled", "error", "lost"].includes(entry.finish)) {
    context.fillStyle = colour("bad");
    context.fillRect(Math.max(left, right - 3), 0, 3, height);
  }
  if (letter === null) return;
  context.strokeStyle = colour("text");
  context.lineWidth = 2;
  context.strokeRect(left + 1, 1, Math.max(2, right - left - 2), height - 2);
  if (right - left < 24) return;
  context.fillStyle = colour("on-bar");
  context.font = "bold 11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillText(letter, Math.max(5, left + 7), height / 2 + 0.5);
}

function currentText(current, kept) {
  if (current === null) return kept ? `${count(kept.computed_tokens)} kept` : "free";
  if (current.phase === "prefill") return `prefill ${count(current.computed_tokens)}/${count(current.prompt_tokens + current.output_tokens)}`;
  if (current.phase === "preempted") return "paused: no cells";
  return `decode ${count(current.output_tokens)}/${count(current.max_tokens)}`;
}

function describe(entry) {
  const lines = [entry.request_id];
  const reused = entry.cached_tokens ? `, ${count(entry.cached_tokens)} of them reused` : "";
  lines.push(`prompt ${count(entry.prompt_tokens)} tokens${reused}; output ${count(entry.output_tokens)}`);
  if (entry.first_token_at !== null) lines.push(`prefill ${seconds(entry.first_token_at - entry.admitted_at)}`);
  if (entry.ended_at !== null) {
    if (entry.first_token_at !== null) lines.push(`decode ${seconds(entry.ended_at - entry.first_token_at)}`);
    lines.push(`ended: ${entry.finish}`);
  }
  return lines.join("\n");
}
