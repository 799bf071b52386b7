// Small time charts on a canvas: the last five minutes, oldest at the left. Each band has a scale of its own.

import { canvas, colour } from "./dom.js";

const TOP = 13;
const FONT = "10.5px system-ui, sans-serif";

// bands: [{ from, to, down, series: [{ values, tone, kind: "area" | "shade" | "line" | "dash" }], limit, label }]
// from and to are shares of the height; a band that grows downwards hangs from its upper edge.
export function draw(element, bands, at) {
  const { context, width, height } = canvas(element);
  if (width === 0) return;
  for (const band of bands) {
    const upper = TOP + (height - TOP - 1) * band.from;
    const lower = TOP + (height - TOP - 1) * band.to;
    drawBand(context, band, width, upper, lower);
  }
  if (at !== null) {
    const length = bands[0].series[0].values.length;
    const x = Math.round((at / (length - 1)) * width) + 0.5;
    context.strokeStyle = colour("muted");
    context.lineWidth = 1;
    line(context, [[x, TOP], [x, height]]);
  }
}

function drawBand(context, band, width, upper, lower) {
  const highest = Math.max(band.limit ?? 0, ...band.series.flatMap(({ values }) => values.map((v) => v ?? 0)));
  const top = band.limit && highest <= band.limit ? band.limit : nice(highest);
  const base = band.down ? upper : lower;
  const y = (value) => base + (band.down ? 1 : -1) * (value / top) * (lower - upper);
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  for (const edge of new Set([Math.round(upper) + 0.5, Math.round(lower) - 0.5])) {
    line(context, [[0, edge], [width, edge]]);
  }
  for (const series of band.series) drawSeries(context, series, width, y, base);
  if (!highest) return;
  const text = band.label(top);
  context.font = FONT;
  context.fillStyle = colour("muted");
  context.textBaseline = "bottom";
  const height = band.down ? lower - 2 : upper - 1;
  context.strokeStyle = colour("panel"); // a halo, where the curve is below
  context.lineWidth = 3;
  context.strokeText(text, 0, height);
  context.fillText(text, 0, height);
}

function drawSeries(context, { values: measured, tone, kind }, width, y, base) {
  const values = [...measured]; // small gaps are bridged in it
  const x = (index) => (index / (values.length - 1)) * width;
  context.strokeStyle = context.fillStyle = colour(tone);
  context.lineWidth = kind === "area" ? 1.25 : 1.5;
  context.setLineDash(kind === "dash" ? [3, 3] : []);
  for (const [start, end] of runs(values)) {
    const points = [];
    for (let index = start; index < end; index += 1) points.push([x(index), y(values[index])]);
    if (points.length === 1) points.push([points[0][0] + Math.max(1.5, width / values.length), points[0][1]]);
    if (kind === "area" || kind === "shade") {
      context.globalAlpha = kind === "shade" ? 0.3 : 0.22;
      context.beginPath();
      context.moveTo(points[0][0], base);
      for (const point of points) context.lineTo(...point);
      context.lineTo(points.at(-1)[0], base);
      context.fill();
      context.globalAlpha = 1;
    }
    if (kind !== "shade") line(context, points);
  }
  context.setLineDash([]);
}

// Stretches without a gap. Seconds in which nothing was measured do not tear a line apart, minutes do.
const BRIDGED_S = 4;

function* runs(values) {
  let start = -1;
  let last = -1;
  for (let index = 0; index <= values.length; index += 1) {
    const here = index < values.length && values[index] !== null;
    if (here && start < 0) start = index;
    if (here && last >= 0 && index - last > 1) {
      for (let gap = last + 1; gap < index; gap += 1) values[gap] = values[last];
    }
    if (here) last = index;
    if (start >= 0 && (index === values.length || (!here && index - last > BRIDGED_S))) {
      yield [start, last + 1];
      start = last = -1;
    }
  }
}

function line(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.slice(1)) context.lineTo(...point);
  context.stroke();
}

// The next of 1, 2, 5, 10, 20 …
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
