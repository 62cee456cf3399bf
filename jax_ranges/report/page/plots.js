// Plots: iterations of a loop, a histogram, columns.

import { drawn, element } from "./elements.js";
import { grouped, power } from "./numbers.js";
import { seenText } from "./model.js";
import { Scale } from "./scale.js";
import { kindOf } from "./counts.js";
import { pieces } from "./bars.js";

const WIDTH = 400;
const HEIGHT = 150;

/** The range in each iteration as a column, on a scale of the site's own. */
export function iterations(site, format) {
  const scale = ownScale(site.each);
  const base = site.each.some(({ low }) => low < 0) ? 0 : 0.5; // one side only where there is one
  const y = (value) => (HEIGHT - 4) * (1 - (scale.place(value) - base) / (1 - base)) + 2;
  const step = WIDTH / site.each.length;
  const lines = [format.least, format.largest].filter(
    (end) => end && !scale.isBeyond(end) && scale.place(end) > base,
  );
  return drawn(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "plot",
      role: "img",
      "aria-label": "Range in each iteration",
    },
    drawn("line", { x1: 0, x2: WIDTH, y1: y(0), y2: y(0), class: "zero" }),
    site.each.map((seen, k) => iteration(site, seen, k, step, y, format)),
    lines.map((end) =>
      drawn(
        "line",
        { x1: 0, x2: WIDTH, y1: y(end), y2: y(end), class: "limit" },
        drawn("title", {}, `${format.name} ends at ${format.texts[end > 0 ? "largest" : "least"]}`),
      ),
    ),
  );
}

const DOWN = 6; // powers of two shown below the smallest of the columns

function ownScale(each) {
  const logs = each.map(({ size }) => Math.log2(size)).filter(Number.isFinite);
  const high = Math.ceil(Math.max(...logs, 0));
  return new Scale(Math.floor(Math.min(...logs, high)) - DOWN, high);
}

function iteration(site, seen, k, step, y, format) {
  const gap = step > 6 ? 1.5 : 0;
  const at = { x: k * step + gap, width: Math.max(step - 2 * gap, 0.5) };
  const mark = seen.nan ? "NaN" : seen.infinite ? "∞" : "";
  return drawn(
    "g",
    {},
    drawn("rect", { x: k * step, y: 0, width: step, height: HEIGHT, class: "touch" }),
    seen.known &&
      pieces(site, seen, format).map(([kind, low, high]) =>
        drawn("rect", { ...at, y: y(high), height: Math.max(y(low) - y(high), 1.5), class: kind }),
      ),
    mark &&
      drawn(
        "text",
        { x: (k + 0.5) * step, y: 11, class: "alarm" },
        step > 24 || mark === "∞" ? mark : "×",
      ),
    drawn("title", {}, `${placeText(site, k)}: ${seenText(seen)}`),
  );
}

/** Which iteration the k-th is: an index for each leading axis, or several that are shown as one. */
export function placeText(site, k) {
  const total = site.lead.reduce((product, length) => product * length, 1);
  const several = Math.ceil(total / site.each.length);
  const first = k * several;
  if (several > 1) return `${first}–${Math.min(first + several, total) - 1}`;
  return indices(site.lead, first).join(", ");
}

function indices(lead, flat) {
  return [...lead]
    .reverse()
    .reduce(
      ([found, rest], length) => [[rest % length, ...found], Math.floor(rest / length)],
      [[], flat],
    )[0];
}

/** How many values of either sign there are at each exponent: a histogram, counts logarithmic. */
export function histogram(site, format) {
  const { first, positive, negative } = site.exponents;
  const zero = negative.some((count) => count > 0) ? HEIGHT / 2 : HEIGHT; // one side only where there is one
  const width = WIDTH / positive.length;
  const ends = [format.bottom, Math.log2(format.largest)].filter(
    (e) => e > first && e < first + positive.length,
  );
  const height = (count) =>
    ((zero - 8) * Math.log1p(count)) / Math.log1p(Math.max(...positive, ...negative));
  const gap = width > 4 ? 0.5 : 0;
  const column = (count, k, sign) =>
    count > 0 &&
    drawn(
      "rect",
      {
        x: k * width + gap,
        y: sign ? zero : zero - height(count),
        width: Math.max(width - 2 * gap, 0.4),
        height: height(count),
        class: kindOf(site, first + k, format),
      },
      drawn(
        "title",
        {},
        `${sign}${power(first + k)} to ${sign}${power(first + k + 1)}: ${grouped(count)} values`,
      ),
    );
  return drawn(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "plot",
      role: "img",
      "aria-label": "Values by power of two",
    },
    positive.map((count, k) => column(count, k, "")),
    negative.map((count, k) => column(count, k, "−")),
    drawn("line", { x1: 0, x2: WIDTH, y1: zero, y2: zero, class: "zero" }),
    ends.map((e) =>
      drawn("line", {
        x1: (e - first) * width,
        x2: (e - first) * width,
        y1: 0,
        y2: HEIGHT,
        class: "limit",
      }),
    ),
  );
}

const MOST_COLUMNS = 32;

/** Columns whose heights are the sizes; one may stand out. Of many, several are drawn as one. */
export function columns(sizes, top = -1) {
  const several = Math.ceil(sizes.length / MOST_COLUMNS);
  const heights = [];
  for (let k = 0; k < sizes.length; k += several) {
    heights.push(Math.max(...sizes.slice(k, k + several).filter((size) => size !== null), 0));
  }
  const largest = Math.max(...heights) || 1;
  const made = heights.map((height, k) => {
    const column = element("i", { class: k === Math.floor(top / several) ? "top" : "" });
    column.style.height = `${Math.max((100 * height) / largest, 3)}%`;
    return column;
  });
  return element("div", { class: "columns", "aria-hidden": "true" }, made);
}
