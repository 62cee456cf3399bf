// The bar of a site, and the scale and the ends of formats that all bars share.

import { element, spanning } from "./elements.js";
import { compact } from "./numbers.js";
import { seenText } from "./model.js";

const LEAST = 0.008; // of the width: what is there is seen

/** The range of a site as a bar, over that of before in a comparison. */
export function bar(site, scale, format) {
  const parts = [];
  if (site.before?.known) parts.push(stretch("before", site.before, scale));
  if (site.seen.known) parts.push(...filled(site, scale, format), ...arrows(site.seen, scale));
  else parts.push(element("em", {}, seenText(site.seen)));
  return element("div", { class: "bar", title: rangeText(site) }, parts);
}

/** A range in words, exactly. */
export function rangeText(site) {
  const text = seenText(site.seen);
  return site.before ? `before: ${seenText(site.before)}\nnow: ${text}` : text;
}

function filled(site, scale, format) {
  return pieces(site, site.seen, format).map(([kind, low, high]) =>
    stretch(kind, { low, high }, scale),
  );
}

/** A range cut at the ends of a format. */
export function pieces(site, { low, high }, { least, largest }) {
  if (!site.float) return [["plain", low, high]];
  const all = [
    low < least && ["over", low, Math.min(high, least)],
    low <= largest && high >= least && ["fit", Math.max(low, least), Math.min(high, largest)],
    high > largest && ["over", Math.max(low, largest), high],
  ];
  return all.filter(Boolean);
}

function stretch(kind, { low, high }, scale) {
  const [from, to] = [scale.place(low), scale.place(high)];
  const missing = Math.max(LEAST - (to - from), 0) / 2;
  const start = Math.min(Math.max(from - missing, 0), 1 - LEAST);
  return spanning(element("i", { class: kind }), start, Math.max(to + missing, start + LEAST));
}

function arrows({ low, high }, scale) {
  const sign = (x, arrow) => (Math.abs(x) === Infinity ? "∞" : arrow);
  return [
    scale.isBeyond(low) && low < 0 && element("b", { class: "left" }, sign(low, "◂")),
    scale.isBeyond(high) && high > 0 && element("b", { class: "right" }, sign(high, "▸")),
  ].filter(Boolean);
}

/** The ends of formats across all bars, as a background; the chosen one stands out. */
export function limitLines(formats, chosen, place, zero = undefined) {
  const lines = formats.flatMap((format, i) =>
    [format.least, format.largest]
      .filter((end) => end !== 0)
      .map((end) => [
        place(end),
        i === chosen ? "var(--limit)" : "var(--limit-faint)",
        i === chosen,
      ]),
  );
  const within = lines.filter(([at]) => at > 0.001 && at < 0.999);
  within.sort(([, , a], [, , b]) => b - a); // what comes first is drawn on top
  if (zero !== undefined) within.push([zero, "var(--line)"]);
  return within.map(([at, colour]) => lineAt(at, colour)).join(",") || "none";
}

function lineAt(place, colour) {
  const at = `${(100 * place).toFixed(3)}%`;
  return `linear-gradient(to right, transparent calc(${at} - 0.5px), ${colour} 0, ${colour} calc(${at} + 0.5px), transparent 0)`;
}

/** The marks of a scale, above what is drawn on it. */
export function axis(marks, format, place) {
  const texts = marks.map(([at, text]) => label(at, text, "tick"));
  const ends = place ? [format.least, format.largest].filter((end) => end !== 0) : [];
  const within = ends.map((end) => [place(end), end]).filter(([at]) => at > 0.001 && at < 0.999);
  return element(
    "div",
    { class: "axis" },
    texts,
    within.map(([at]) => label(at, "", "end")),
    within.filter(([, end]) => end > 0).map(([at, end]) => label(at, compact(end), "limit")),
  );
}

function label(at, text, kind) {
  const made = element(
    "span",
    { class: `${kind}${at < 0.06 ? " first" : at > 0.94 ? " last" : ""}` },
    text,
  );
  made.style.left = `${100 * at}%`;
  return made;
}
