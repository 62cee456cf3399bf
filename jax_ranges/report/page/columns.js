// The columns of the table: what each shows of a site, and what it sorts by.

import { element } from "./elements.js";
import { compact, short } from "./numbers.js";
import { isGauged } from "./model.js";
import { axis, bar } from "./bars.js";
import { heat } from "./heat.js";
import { columns } from "./plots.js";

const NARROW = 620;
const MIDDLE = 800;
const WIDE = 1000;

/** The columns that there is room for. */
export function columnsFor(model, state, width) {
  const all = [
    {
      id: "index",
      title: "#",
      kind: "number dim",
      width: 46,
      from: WIDE,
      key: (site) => site.index,
      cell: (site) => String(site.index),
    },
    nameColumn(state, width),
    {
      id: "type",
      title: "Type",
      kind: "type",
      width: 112,
      from: model.compared ? WIDE : MIDDLE,
      key: (site) => site.dtype + site.shape,
      cell: (site) => typeOf(site),
    },
    {
      id: "flags",
      title: "",
      kind: "flags",
      width: model.root.nan || model.root.infinite ? 88 : 60,
      from: 0,
      cell: flags,
    },
    ...(state.view === "heat" ? [] : ends()),
    state.view === "heat" ? heatColumn() : barColumn(model, state, width),
    ...(model.sites.some((site) => site.each.length) ? [eachColumn()] : []),
    ...(model.compared ? moves() : []),
    {
      id: "source",
      title: "Source",
      kind: "source",
      width: 150,
      from: 1080,
      key: (site) => site.short,
      cell: sourceOf,
    },
  ];
  return all.filter((column) => width >= column.from);
}

function nameColumn(state, width) {
  const share = width < NARROW ? 0.44 : 0.32;
  return {
    id: "name",
    title: "Operation",
    kind: "name",
    width: Math.round(width * share),
    from: 0,
    key: state.nameKey,
    cell: (site) => where(site.path, site.label, whereText(site)),
  };
}

function whereText(site) {
  return site.source ? `${site.name}\n${site.source}` : site.name;
}

/** The line of a source matters more than its folder. */
function sourceOf(site) {
  const [, folder, file] = site.short.match(/^(.*\/)?(.*)$/s);
  return where(folder ?? "", file, site.source);
}

/** A path of which the last part stays, whatever room there is. */
function where(path, label, title) {
  return element(
    "div",
    { class: "where", title },
    element("span", { class: "path" }, path),
    element("span", { class: "label" }, label),
  );
}

function typeOf(site) {
  return [
    element(
      "span",
      { title: `${site.dtype}${site.shape}` },
      `${site.dtype} `,
      element("span", { class: "dim" }, site.shape),
    ),
  ];
}

function flags(site, state) {
  const over = site.over.includes(state.format);
  return [
    site.backward && element("span", { class: "mark back", title: "backward pass" }, "↩"),
    site.seen.nan && element("span", { class: "mark nan", title: "a NaN was seen" }, "NaN"),
    site.seen.infinite &&
      element("span", { class: "mark inf", title: "an infinity was seen" }, "∞"),
    over &&
      element("span", { class: "mark over", title: `values beyond ${state.formatName}` }, "▲"),
    site.changes.length > 0 &&
      element("span", { class: "mark moved", title: site.changes.join(", ") }, "Δ"),
  ].filter(Boolean);
}

function ends() {
  const hint = "of what was seen, NaN aside";
  const end = (id, title, key, text) => ({
    id,
    title,
    hint,
    kind: "number",
    width: 86,
    from: NARROW,
    descends: id === "high",
    key: (site) => site.seen[key],
    cell: (site) => [endText(site.seen, text)],
  });
  return [end("low", "Min", "low", "lowText"), end("high", "Max", "high", "highText")];
}

function endText(seen, text) {
  if (!seen.observed) return "";
  if (!seen.known) return element("b", { class: "nan" }, "NaN");
  return element("span", { title: seen[text] }, short(seen[text]));
}

function barColumn(model, state, width) {
  return {
    id: "size",
    title: "Range",
    kind: "picture",
    from: 0,
    hint: "by the largest magnitude",
    descends: true,
    key: (site) => (isGauged(site, model.gauge) ? site.seen.size : NaN),
    cell: (site) => bar(site, state.scale, state.chosen),
    head: () =>
      axis(state.scale.marks(width < NARROW ? 1 : 2), state.chosen, (end) =>
        state.scale.place(end),
      ),
  };
}

/** The ends of a format on a scale without signs. */
export function magnitudes(format) {
  return { least: format.smallest, largest: format.largest };
}

function heatColumn() {
  return {
    id: "size",
    title: "Values by power of two",
    kind: "picture wide",
    from: 0,
    hint: "by the largest magnitude",
    descends: true,
    key: (site) => site.seen.size,
    cell: (site, state) => heat(site, state.exponents, state.chosen),
    head: (state) =>
      element(
        "div",
        { class: "heat-axis" },
        element("span", { class: "zeros" }, "0"),
        axis(state.exponents.marks(), magnitudes(state.chosen), (end) =>
          state.exponents.place(end),
        ),
      ),
  };
}

function eachColumn() {
  const sizes = (site) => site.each.map(({ size }) => (Number.isFinite(size) ? size : null));
  return {
    id: "each",
    title: "Each",
    kind: "each",
    width: 92,
    from: MIDDLE,
    cell: (site) => (site.each.length ? columns(sizes(site)) : ""),
  };
}

function moves() {
  return [
    {
      id: "changes",
      title: "What moved",
      kind: "dim",
      width: 116,
      from: MIDDLE,
      key: (site) => site.changes[0],
      cell: (site) => [
        element("span", { title: site.changes.join(", ") }, site.changes.join(", ")),
      ],
    },
    {
      id: "score",
      title: "Score",
      kind: "number",
      width: 72,
      from: 0,
      hint: "how far beyond the old range",
      descends: true,
      key: (site) => site.score,
      cell: (site) => [
        element("span", { title: String(site.score) }, site.score ? compact(site.score) : ""),
      ],
    },
  ];
}
