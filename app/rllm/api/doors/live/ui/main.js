// Puts the page together: state in, picture out.

import { key } from "./api.js";
import { Cards } from "./cards.js";
import { Chat } from "./chat.js";
import { $, badges, options, say, show } from "./dom.js";
import { Feed } from "./feed.js";
import { count, duration } from "./format.js";
import { Panel } from "./lanes.js";
import { Store } from "./store.js";

const store = new Store();
const cards = new Cards($("cards"));
const panels = new Map();
const chat = new Chat(askForKey);
const feed = new Feed({ onState, onTrouble, onPause: () => link("paused", "paused") });

function onState(state, isFirst) {
  store.absorb(state, isFirst);
  link("live", "live");
  say($("about"), `${state.version} · up ${duration(state.uptime_s)}`);
  show($("key-button"), Boolean(key.get()));
  chat.offer(state.models.map((model) => model.id));
  offerScopes(state.models);
  draw();
}

function draw() {
  const { state } = store;
  if (state === null) return;
  verdict(state);
  const scope = $("scope").value;
  const chosen = state.models.filter((model) => scope === "" || model.id === scope);
  const instances = chosen.flatMap((model) => model.instances);
  cards.update(store.seconds(scope), state.minute[scope] ?? null, instances, state.gpus);
  for (const model of state.models) {
    for (const instance of model.instances) {
      if (!panels.has(instance.name)) panels.set(instance.name, new Panel($("instances")));
      panels.get(instance.name).update(model, instance, store.spans(instance.name), state.time);
    }
  }
}

function verdict(state) {
  $("verdict").dataset.level = state.verdict.level;
  say($("headline"), state.verdict.headline);
  say($("detail"), state.verdict.detail);
  const refused = Object.entries(state.rejections);
  const parked = state.models.reduce((sum, model) => sum + model.parked, 0);
  badges($("badges"), [
    ...refused.map(([reason, number]) => ({ text: `${count(number)} refused: ${reason.replaceAll("_", " ")}`, tone: "warn" })),
    parked > 0 && { text: `${parked} waiting for a worker`, tone: "warn" },
  ]);
}

function offerScopes(models) {
  show($("scope-label"), models.length > 1);
  options($("scope"), [["", "all models"], ...models.map((model) => [model.id, model.id])], "");
}

function onTrouble(error) {
  if (error.wantsKey) {
    askForKey(error.message);
    return;
  }
  link("lost", "no answer, trying again");
  $("verdict").dataset.level = "bad";
  say($("headline"), error.message);
  say($("detail"), store.state ? "What you see is the last that was heard. Trying again." : "Trying again.");
}

function link(state, text) {
  $("link").dataset.state = state;
  say($("link").lastElementChild, text);
  document.body.dataset.link = state;
}

// --- the key ---------------------------------------------------------------------------------------

function askForKey(reason) {
  feed.halt();
  link("paused", "needs a key");
  say($("headline"), "An API key is needed.");
  say($("detail"), reason);
  say($("key-reason"), key.get() ? reason : "");
  show($("key-reason"), Boolean(key.get()));
  openKeyDialog();
}

function openKeyDialog() {
  $("key").value = "";
  show($("key-forget"), Boolean(key.get()));
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key-dialog").close();
  feed.start();
});
$("key-forget").addEventListener("click", () => {
  key.forget();
  $("key-dialog").close();
  feed.start();
});
$("key-dialog").addEventListener("cancel", () => show($("key-button"), true));
$("key-button").addEventListener("click", openKeyDialog);

$("scope").addEventListener("change", draw);
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
feed.start();
