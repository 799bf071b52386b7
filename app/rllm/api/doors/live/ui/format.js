// Numbers as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

export const NONE = "–";

export function count(value) {
  return whole.format(value);
}

export function rate(value) {
  return value === null ? NONE : value < 10 && value > 0 ? tenth.format(value) : whole.format(value);
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.0095) return `${tenth.format(value * 1000)} ms`;
  if (value < 0.9995) return `${whole.format(value * 1000)} ms`;
  return value < 99.95 ? `${value.toFixed(value < 9.995 ? 2 : 1)} s` : `${whole.format(value)} s`;
}

// For an axis: round values without the zeros.
export function tick(value) {
  return value < 1 ? `${whole.format(value * 1000)} ms` : `${whole.format(value)} s`;
}

export function percent(share) {
  return `${whole.format(share * 100)} %`;
}

export function bytes(value) {
  const gib = value / 2 ** 30;
  return gib >= 1 ? `${gib.toFixed(1)} GiB` : `${whole.format(value / 2 ** 20)} MiB`;
}

export function duration(total) {
  const minutes = Math.floor(total / 60);
  if (minutes < 1) return `${Math.floor(total)} s`;
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}
