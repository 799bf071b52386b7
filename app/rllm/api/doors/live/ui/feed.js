// Asks for the state once a second, only while somebody can see the page.

import { call } from "./api.js";

const PERIOD_MS = 1000;
const PATIENCE_MS = 5000;
const SLOWEST_MS = 8000;

export class Feed {
  #timer = 0;
  #since = 0;
  #failures = 0;
  #asking = null;
  #halted = false;

  // onState(state, isFirst), onTrouble(error), onPause()
  constructor({ onState, onTrouble, onPause }) {
    this.onState = onState;
    this.onTrouble = onTrouble;
    this.onPause = onPause;
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  start() {
    this.#halted = false;
    this.#failures = 0;
    this.#next(0);
  }

  // Until `start`: without a key there is nothing to ask for.
  halt() {
    this.#halted = true;
    clearTimeout(this.#timer);
  }

  #seen() {
    if (document.hidden) {
      clearTimeout(this.#timer);
      this.#asking?.abort();
      this.onPause();
    } else if (!this.#halted) {
      this.#next(0);
    }
  }

  #next(delay) {
    clearTimeout(this.#timer);
    if (!this.#halted && !document.hidden) this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    const timeout = setTimeout(() => asking.abort(), PATIENCE_MS);
    const started = performance.now();
    try {
      const response = await call(`v1/rllm/state?since=${this.#since}`, { signal: asking.signal });
      const state = await response.json();
      if (asking !== this.#asking) return;
      // another process answers: what this one knows since then is not what we have until then
      const elapsed = state.time - this.#since;
      const restarted = this.#since > 0 && (elapsed < 0 || state.uptime_s < elapsed - 1);
      const isFirst = this.#since === 0 || restarted;
      this.#since = restarted ? 0 : state.time;
      this.#failures = 0;
      this.onState(state, isFirst);
    } catch (error) {
      if (asking !== this.#asking || document.hidden) return;
      this.#failures += 1;
      this.onTrouble(error.name === "AbortError" ? new Error("The server does not answer.") : error);
    } finally {
      clearTimeout(timeout);
    }
    if (asking !== this.#asking) return;
    const slower = this.#failures ? Math.min(SLOWEST_MS, PERIOD_MS * 2 ** (this.#failures - 1)) : PERIOD_MS;
    this.#next(Math.max(100, slower - (performance.now() - started)));
  }
}
