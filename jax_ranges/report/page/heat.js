// One line of a heat map: the share of values at each power of two.

import { element } from "./elements.js";
import { compact, grouped, percent, power } from "./numbers.js";
import { kindOf, totalOf } from "./counts.js";

/** The share of values at each exponent, as one line of a heat map. */
export function heat(site, exponents, format) {
  const found = site.exponents;
  if (!found) return element("div", { class: "heat none" }, "not counted");
  const columns = columnsOf(found, exponents);
  const total = totalOf(found);
  const stops = columns.map((count, k) => {
    const shade = colourOf(count / total, kindOf(site, exponents.first + k, format));
    return `${shade} ${((100 * k) / exponents.count).toFixed(2)}% ${((100 * (k + 1)) / exponents.count).toFixed(2)}%`;
  });
  const strip = element("div", { class: "strip" });
  strip.style.backgroundImage = `var(--limits), linear-gradient(to right, ${stops.join(", ")})`;
  strip.addEventListener("mousemove", (event) => {
    const column = Math.floor((event.offsetX / strip.clientWidth) * exponents.count);
    strip.title = heatText(
      columns,
      Math.min(Math.max(column, 0), exponents.count - 1),
      exponents,
      total,
    );
  });
  return element("div", { class: "heat" }, zeros(found, total), strip);
}

function columnsOf(found, exponents) {
  const columns = new Array(exponents.count).fill(0);
  (found.positive ?? []).forEach((count, k) => {
    columns[exponents.column(found.first + k)] += count + found.negative[k];
  });
  return columns;
}

const FAINTEST = -7; // of the decimal logarithm of a share

function colourOf(share, kind) {
  if (share === 0) return "transparent";
  const strength = 12 + 88 * (1 - Math.max(Math.log10(share), FAINTEST) / FAINTEST);
  return `color-mix(in oklab, var(--${kind}) ${strength.toFixed(0)}%, var(--panel))`;
}

function zeros(found, total) {
  const cell = element("div", {
    class: "zeros",
    title: `zero: ${grouped(found.zero)} (${percent(found.zero / total)})`,
  });
  if (found.zero) cell.style.background = colourOf(found.zero / total, "fit");
  return cell;
}

function heatText(columns, column, exponents, total) {
  const exponent = exponents.first + column;
  const [below, above] = [
    column === 0 ? "or less" : "",
    column === columns.length - 1 ? "or more" : "",
  ];
  const count = columns[column];
  return `from ${power(exponent)} ${below}${above} (${compact(2 ** exponent)})\n${grouped(count)} values, ${percent(count / total)}`;
}
