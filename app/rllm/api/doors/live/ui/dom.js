// Small helpers over the document. Text only ever goes in as text.

export const $ = (id) => document.getElementById(id);

export function make(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, visible) {
  element.hidden = !visible;
}

export function badges(list, items) {
  const wanted = items.filter(Boolean);
  const known = wanted.map((item) => `${item.tone}:${item.text}`).join("|");
  if (list.dataset.known === known) return;
  list.dataset.known = known;
  list.replaceChildren(
    ...wanted.map(({ text, tone }) => {
      const badge = document.createElement("li");
      badge.textContent = text;
      badge.dataset.tone = tone;
      return badge;
    }),
  );
}

export function options(select, values, chosen) {
  const known = values.map(([value, text]) => `${value}=${text}`).join("|");
  if (select.dataset.known === known) return;
  select.dataset.known = known;
  const before = select.value || chosen;
  select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
  if (values.some(([value]) => value === before)) select.value = before;
}

// A canvas that is sharp on every screen. Returns its context, cleared, and its size in CSS pixels.
export function canvas(element) {
  const { clientWidth: width, clientHeight: height } = element;
  const ratio = window.devicePixelRatio || 1;
  if (element.width !== Math.round(width * ratio) || element.height !== Math.round(height * ratio)) {
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
  }
  const context = element.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// The colours of the style sheet, looked up again when the system changes between dark and light.
const scheme = matchMedia("(prefers-color-scheme: dark)");
let palette = null;
scheme.addEventListener("change", () => (palette = null));

export function colour(name) {
  if (palette === null) palette = new Map();
  if (!palette.has(name)) {
    palette.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return palette.get(name);
}
