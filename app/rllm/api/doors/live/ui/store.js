// What is known so far: answers carry only what is new, and the page draws minutes.

export const HISTORY_S = 300;
const LEAST_S = 60;
const SPANS_S = 130;

export class Store {
  #points = new Map();
  #spans = new Map();
  state = null;

  absorb(state, isFirst) {
    if (isFirst) {
      this.#points.clear();
      this.#spans.clear();
    }
    this.state = state;
    for (const [model, points] of Object.entries(state.history)) {
      const known = this.#points.get(model) ?? [];
      known.push(...points.filter((point) => !known.length || point.t > known.at(-1).t));
      this.#points.set(model, known.filter((point) => point.t > state.time - 2 * HISTORY_S));
    }
    for (const instance of state.models.flatMap((model) => model.instances)) {
      const known = [...(this.#spans.get(instance.name) ?? []), ...instance.spans];
      this.#spans.set(instance.name, known.filter((span) => span.ended_at > state.time - SPANS_S));
    }
  }

  spans(instance) {
    return this.#spans.get(instance) ?? [];
  }

  // One entry per second, oldest first: rates are 0 and gauges stay where nothing happened. Five minutes, or
  // what there is since the server started.
  seconds(model) {
    const points = this.#points.get(model) ?? [];
    const last = Math.floor(this.state.time) - 1;
    const length = Math.max(LEAST_S, Math.min(HISTORY_S, Math.ceil(this.state.uptime_s)));
    const first = last - length + 1;
    const dense = [];
    let index = 0;
    let gauges = { running: 0, waiting: 0, kv_used: 0 };
    for (let t = first; t <= last; t += 1) {
      while (index < points.length && points[index].t < t) gauges = points[index++];
      const here = index < points.length && points[index].t === t ? points[index] : null;
      dense.push(here ?? { ...EMPTY, t, running: gauges.running, waiting: gauges.waiting, kv_used: gauges.kv_used });
    }
    return dense;
  }
}

const EMPTY = {
  decode_tokens: 0,
  prefill_tokens: 0,
  ttft_p50_s: null,
  ttft_p95_s: null,
  itl_p50_s: null,
  itl_p99_s: null,
};
