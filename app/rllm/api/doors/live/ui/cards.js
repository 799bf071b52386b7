// The row of figures with their last five minutes.

import { draw } from "./chart.js";
import { make, say } from "./dom.js";
import { NONE, bytes, count, percent, rate, seconds, tick } from "./format.js";

const LATELY_S = 5;

const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0);
const lately = (points, name) => mean(points.slice(-LATELY_S).map((point) => point[name]));
const all = (points, name) => points.map((point) => point[name]);

class Card {
  #at = null;
  #last = null;

  constructor(root, title, note) {
    this.element = make("t-card");
    this.title = title;
    this.canvas = this.element.querySelector("canvas");
    this.note = this.element.querySelector(".note");
    this.usual = note;
    say(this.element.querySelector("h3"), title);
    say(this.note, note);
    root.append(this.element);
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.#point(null));
  }

  // bands as in chart.js; tell(index) describes one second
  show(value, more, bands, tell) {
    say(this.element.querySelector(".value b"), value);
    say(this.element.querySelector(".value span"), more);
    this.canvas.setAttribute("aria-label", `${this.title}, last five minutes. Now: ${value} ${more}`);
    this.#last = { bands, tell };
    this.#draw();
  }

  #point(event) {
    if (this.#last === null) return;
    const length = this.#last.bands[0].series[0].values.length;
    const share = event && event.offsetX / this.canvas.clientWidth;
    this.#at = event && Math.min(length - 1, Math.max(0, Math.round(share * (length - 1))));
    this.#draw();
  }

  #draw() {
    const { bands, tell } = this.#last;
    draw(this.canvas, bands, this.#at);
    if (this.#at === null) {
      say(this.note, this.usual);
    } else {
      say(this.note, `${bands[0].series[0].values.length - this.#at} s ago: ${tell(this.#at)}`);
    }
  }
}

export class Cards {
  #gpus = null;

  constructor(root) {
    this.root = root;
    this.throughput = new Card(root, "Throughput", "decode up, prefill down");
    this.ttft = new Card(root, "Time to first token", "median; shaded: p95");
    this.itl = new Card(root, "Between tokens", "median; shaded: p99");
    this.load = new Card(root, "Requests", "running; on top: waiting");
    this.kv = new Card(root, "KV cache", "kept prefixes included");
  }

  // instances: those the charts are about
  update(points, minute, instances, gpus) {
    this.#throughput(points);
    this.#latency(this.ttft, points, "ttft", "p95", minute);
    this.#latency(this.itl, points, "itl", "p99", minute);
    this.#load(points, instances);
    this.#kv(points, instances);
    this.#gpu(gpus);
  }

  #throughput(points) {
    const decode = all(points, "decode_tokens");
    const prefill = all(points, "prefill_tokens");
    const label = (top) => `${count(top)}`;
    this.throughput.show(
      `${rate(lately(points, "decode_tokens"))} tok/s`,
      `+ ${rate(lately(points, "prefill_tokens"))} prefill`,
      [
        { from: 0, to: 0.58, label, series: [{ values: decode, tone: "decode", kind: "area" }] },
        { from: 0.58, to: 1, down: true, label, series: [{ values: prefill, tone: "prefill", kind: "area" }] },
      ],
      (at) => `${count(decode[at])} decode, ${count(prefill[at])} prefill`,
    );
  }

  #latency(card, points, name, high, minute) {
    const median = all(points, `${name}_p50_s`);
    const worst = all(points, `${name}_${high}_s`);
    const now = minute?.[`${name}_p50_s`] ?? null;
    card.show(
      seconds(now),
      now === null ? "no answer in the last minute" : `${high} ${seconds(minute[`${name}_${high}_s`])}, last minute`,
      [
        {
          from: 0,
          to: 1,
          label: tick,
          series: [
            { values: worst, tone: "accent", kind: "shade" },
            { values: median, tone: "accent", kind: "line" },
          ],
        },
      ],
      (at) => (median[at] === null ? "nothing measured" : `${seconds(median[at])}, ${high} ${seconds(worst[at])}`),
    );
  }

  #load(points, instances) {
    const running = all(points, "running");
    const total = points.map((point) => point.running + point.waiting);
    const slots = instances.reduce((sum, instance) => sum + instance.slots, 0);
    const last = points.at(-1);
    this.load.show(
      `${last.running} of ${slots}`,
      last.waiting ? `running, ${count(last.waiting)} waiting` : "running, none waiting",
      [
        {
          from: 0,
          to: 1,
          limit: slots,
          label: (top) => (top === slots ? `${slots} slots` : count(top)),
          series: [
            { values: total, tone: "warn", kind: "area" },
            { values: running, tone: "decode", kind: "area" },
            { values: points.map(() => slots), tone: "muted", kind: "dash" },
          ],
        },
      ],
      (at) => `${running[at]} running, ${points[at].waiting} waiting`,
    );
  }

  #kv(points, instances) {
    const cells = instances.reduce((sum, instance) => sum + instance.kv_cells, 0);
    const size = instances.reduce((sum, instance) => sum + instance.kv_bytes, 0);
    const used = all(points, "kv_used");
    this.kv.show(
      cells ? percent(used.at(-1) / cells) : NONE,
      `of ${count(cells)} cells, ${bytes(size)}`,
      [
        {
          from: 0,
          to: 1,
          limit: cells,
          label: (top) => `${count(top)} cells`,
          series: [
            { values: used, tone: "reused", kind: "area" },
            { values: points.map(() => cells), tone: "muted", kind: "dash" },
          ],
        },
      ],
      (at) => `${count(used[at])} cells`,
    );
  }

  #gpu(gpus) {
    if (!gpus.length) {
      this.#gpus?.remove();
      this.#gpus = null;
      return;
    }
    if (this.#gpus === null) {
      this.#gpus = document.createElement("article");
      this.#gpus.className = "card gpu";
      this.root.append(this.#gpus);
    }
    const title = document.createElement("h3");
    title.textContent = gpus.length === 1 ? "GPU" : "GPUs";
    this.#gpus.replaceChildren(title, ...gpus.map(describe));
  }
}

function describe(gpu) {
  const line = document.createElement("p");
  const facts = [
    gpu.utilization_ratio !== null && `${percent(gpu.utilization_ratio)} busy`,
    gpu.memory_used_bytes !== null && `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_total_bytes)}`,
    gpu.power_w !== null && `${count(gpu.power_w)} W`,
    gpu.temperature_c !== null && `${count(gpu.temperature_c)} °C`,
  ];
  const name = document.createElement("b");
  name.textContent = `${gpu.index} ${gpu.name}`;
  line.append(name, ` ${facts.filter(Boolean).join(", ")}`);
  return line;
}
