// Numbers and their texts. The document has numbers as exact texts; see document.py.

const RAISED = {
  "-": "⁻",
  0: "⁰",
  1: "¹",
  2: "²",
  3: "³",
  4: "⁴",
  5: "⁵",
  6: "⁶",
  7: "⁷",
  8: "⁸",
  9: "⁹",
};

/** The number of a text. */
export function numeric(text) {
  return Number(text.replace("inf", "Infinity"));
}

/** At most four significant digits; small integers whole. */
export function short(text) {
  if (text === undefined) return "";
  if (text.includes("inf")) return text.replace("inf", "∞").replace("-", "−");
  if (/^-?\d{1,7}$/.test(text)) return grouped(text);
  return compact(numeric(text));
}

/** A number that has no text of its own, in the same way. */
export function compact(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size === Infinity) return value < 0 ? "−∞" : "∞";
  if (size >= 1e4 && size < 1e7) return grouped(value.toFixed(0));
  if (size >= 1e-4 && size < 1e7) return minus(String(Number(value.toPrecision(4))));
  const [digits, exponent] = value.toExponential(2).split("e");
  return minus(`${Number(digits)}e${Number(exponent)}`);
}

/** How many times as large, in words that a person would use. */
export function ratioText(ratio) {
  return `${ratio < 10 ? ratio.toFixed(1) : compact(Number(ratio.toPrecision(3)))}×`;
}

/** A share in per cent. */
export function percent(share) {
  if (share === 0) return "0%";
  if (share < 1e-4) return "<0.01%";
  return `${Number((100 * share).toPrecision(2))}%`;
}

/** A power of two: 2⁻³. */
export function power(exponent) {
  return `2${[...String(exponent)].map((digit) => RAISED[digit]).join("")}`;
}

/** 12,345. */
export function grouped(count) {
  return minus(String(count).replace(/\B(?=(\d{3})+$)/g, ","));
}

/** "1 operation", "2 operations". */
export function operations(count) {
  return `${grouped(count)} operation${count === 1 ? "" : "s"}`;
}

function minus(text) {
  return text.replaceAll("-", "−");
}
