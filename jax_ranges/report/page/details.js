// All that is known of one site.

import { byId, element } from "./elements.js";
import { compact, grouped, percent, ratioText } from "./numbers.js";
import { seenText } from "./model.js";
import { totalOf } from "./counts.js";
import { axis, bar, limitLines } from "./bars.js";
import { histogram, iterations, placeText } from "./plots.js";

/** Draws the details of `state.opened`, or closes them. */
export function drawDetails(model, state, act) {
  const place = byId("details");
  const site = state.opened;
  place.hidden = !site;
  document.body.classList.toggle("with-details", Boolean(site));
  if (!site) return place.replaceChildren();
  place.replaceChildren(
    ...[
      heading(site, act),
      facts(site),
      site.before || site.changes.length ? changes(site) : undefined,
      range(model, site, state),
      site.float ? formats(model, site, state) : undefined,
      site.each.length ? loop(site, state) : undefined,
      site.exponents ? counted(site, state) : undefined,
      site.family.length ? family(model, site, state, act) : undefined,
      links("Reads the arguments", site.reads, model, act),
      links("Fed by", site.operands, model, act),
      links("Feeds", site.users, model, act),
    ].filter(Boolean),
  );
  place.scrollTop = 0;
}

function part(title, ...children) {
  return element("section", {}, element("h3", {}, title), children);
}

function heading(site, act) {
  const name = element(
    "h2",
    {},
    element("span", { class: "dim" }, site.path),
    element("wbr"),
    site.label,
  );
  const copy = element(
    "button",
    { type: "button", class: "quiet small", click: () => copied(copy, name) },
    "copy name",
  );
  return element(
    "header",
    {},
    name,
    element(
      "div",
      { class: "acts" },
      copy,
      element(
        "button",
        {
          type: "button",
          class: "quiet",
          id: "close",
          "aria-label": "Close the details",
          click: () => act.open(undefined),
        },
        "✕",
      ),
    ),
  );
}

/** Where the browser lets no page write to the clipboard, the name is selected for ctrl-C. */
async function copied(button, name) {
  try {
    await navigator.clipboard.writeText(name.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(name);
    button.textContent = "selected";
  }
}

function facts(site) {
  const all = [
    ["primitive", site.primitive],
    ["type", `${site.dtype}${site.shape}`],
    ["pass", site.backward ? "backward" : "forward"],
    ["source", site.source || "unknown"],
    ...(site.lead.length
      ? [["ranges", `one for each of ${site.lead.map(grouped).join(" × ")}`]]
      : []),
  ];
  return element(
    "dl",
    { class: "facts" },
    all.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

function range(model, site, state) {
  const { seen } = site;
  const picture = element(
    "div",
    { class: "large" },
    axis(state.scale.marks(3), state.chosen, (end) => state.scale.place(end)),
    bar(site, state.scale, state.chosen),
  );
  picture.style.setProperty(
    "--limits",
    limitLines(model.formats, state.format, (end) => state.scale.place(end), 0.5),
  );
  const ends = seen.known
    ? [end("min", seen.lowText), end("max", seen.highText)]
    : [
        element(
          "p",
          { class: "unseen" },
          seen.observed ? "only NaN was seen" : "not observed: it never ran, or had no elements",
        ),
      ];
  const marks = [
    seen.nan && element("span", { class: "mark nan" }, "NaN was seen"),
    seen.infinite && element("span", { class: "mark inf" }, "∞ was seen"),
  ].filter(Boolean);
  return part("Range", element("div", { class: "ends" }, ends, marks), picture);
}

function end(name, text) {
  return element(
    "div",
    {},
    element("span", { class: "dim" }, `${name} `),
    element("b", { title: text }, text),
  );
}

function changes(site) {
  const score = compact(site.score);
  return part(
    "What moved",
    element(
      "p",
      {},
      element("b", {}, site.changes.join(", ") || "nothing"),
      site.score > 0 && `, score ${score}`,
    ),
    element(
      "dl",
      { class: "facts" },
      element("dt", {}, "before"),
      element("dd", {}, site.before ? seenText(site.before) : "there was no such operation"),
      element("dt", {}, "now"),
      element(
        "dd",
        {},
        site.changes.includes("went") ? "there is no such operation" : seenText(site.seen),
      ),
    ),
  );
}

// -- formats ----------------------------------------------------------------------------------

function formats(model, site, state) {
  const counted = Boolean(site.exponents?.positive);
  const titles = ["format", "without a scale", ...(counted ? ["beyond", "below"] : [])];
  const lines = model.formats.map((format, i) =>
    element(
      "tr",
      { class: i === state.format ? "chosen" : "" },
      element(
        "th",
        { scope: "row", title: `${format.texts.least} to ${format.texts.largest}` },
        format.name,
      ),
      verdict(site, format, i),
      counted && shares(site, format),
    ),
  );
  return part(
    "Would it fit?",
    element(
      "table",
      { class: "fits" },
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          titles.map((title) => element("th", { scope: "col" }, title)),
        ),
      ),
      element("tbody", {}, lines),
    ),
    counted &&
      element(
        "p",
        { class: "dim note" },
        "beyond: the share of values that overflow; below: of those nearer to zero than the smallest number",
      ),
  );
}

function verdict(site, format, i) {
  if (!site.over.includes(i)) return element("td", {}, "✓ fits");
  return element("td", { class: "over" }, `▲ ${excess(site.seen, format)}`);
}

function excess({ low, high }, { least, largest }) {
  const times = Math.max(high / largest, least ? low / least : 0);
  if (times <= 1) return "below zero"; // which is the least number of the format
  return `${times === Infinity ? "∞" : ratioText(times)} too large`;
}

function shares(site, format) {
  const { first, positive, negative, zero } = site.exponents;
  const total = totalOf(site.exponents) || 1;
  const sum = (fits) =>
    positive.reduce((all, count, k) => all + (fits(first + k) ? count + negative[k] : 0), 0) /
    total;
  const [surely, perhaps] = [sum((e) => e > format.top), sum((e) => e >= format.top)];
  const beyond = site.seen.size <= format.largest ? 0 : surely;
  // The largest number is within a power of two that was counted as one.
  const unsure = site.seen.size > format.largest && perhaps > surely;
  const below = sum((e) => e < format.bottom);
  return [
    element(
      "td",
      { title: unsure ? `from ${percent(surely)} to ${percent(perhaps)}` : undefined },
      unsure ? `≤ ${percent(perhaps)}` : percent(beyond),
    ),
    element("td", { title: `exact zeros, not among them: ${grouped(zero)}` }, percent(below)),
  ];
}

// -- loops, counts, layers, neighbours --------------------------------------------------------

function loop(site, state) {
  const last = placeText(site, site.each.length - 1);
  return part(
    "By iteration or example",
    iterations(site, state.chosen),
    element(
      "div",
      { class: "plot-ends dim" },
      element("span", {}, placeText(site, 0)),
      element("span", {}, last),
    ),
  );
}

function counted(site, state) {
  const { first, positive, zero, neg_inf, pos_inf, nan } = site.exponents;
  const others = [
    ["zero", zero],
    ["NaN", nan],
    ["+∞", pos_inf],
    ["−∞", neg_inf],
  ].filter(([, count]) => count > 0);
  const texts = [
    `${grouped(totalOf(site.exponents))} values`,
    ...others.map(([name, count]) => `${grouped(count)} ${name}`),
  ];
  return part(
    "Values by power of two",
    positive && histogram(site, state.chosen),
    positive &&
      element(
        "div",
        { class: "plot-ends dim" },
        element("span", {}, compact(2 ** first)),
        element("span", {}, compact(2 ** (first + positive.length))),
      ),
    element(
      "p",
      { class: "dim note" },
      `${texts.join(", ")}. Positive upwards, negative downwards; heights are logarithmic.`,
    ),
  );
}

const MOST_MEMBERS = 32;

function family(model, site, state, act) {
  const all = site.family.map((index) => model.sites[index]);
  const members = mostOf(all, site);
  const largest = Math.max(...members.map(({ seen }) => seen.size).filter(Number.isFinite), 0) || 1;
  const lines = members.map((each) =>
    member(each, each === site, largest, differing(each, all), state, act),
  );
  const how =
    members.length < all.length ? `, the ${MOST_MEMBERS} largest of ${grouped(all.length)}` : "";
  return part(`The same operation elsewhere${how}`, element("div", { class: "family" }, lines));
}

/** The largest of a family and the site itself, in program order. */
function mostOf(members, site) {
  if (members.length <= MOST_MEMBERS) return members;
  const size = ({ seen }) => (Number.isNaN(seen.size) ? -1 : seen.size);
  const largest = new Set(
    [...members].sort((a, b) => size(b) - size(a)).slice(0, MOST_MEMBERS),
  ).add(site);
  return members.filter((each) => largest.has(each));
}

function member(site, isThis, largest, label, state, act) {
  const fill = element("i", { class: site.over.includes(state.format) ? "over" : "fit" });
  fill.style.width = `${Math.min(100 * (site.seen.size / largest || 0), 100)}%`;
  return element(
    "button",
    {
      type: "button",
      class: isThis ? "member this" : "member",
      title: site.name,
      click: () => act.open(site),
    },
    element("span", { class: "label" }, label),
    element("span", { class: "track" }, fill),
    element("span", { class: "size" }, site.seen.known ? compact(site.seen.size) : ""),
  );
}

/** The scopes of a name in which the members of its family differ. */
function differing(site, members) {
  const paths = members.map(({ path }) => path.split("/"));
  const mine = site.path.split("/");
  const found = mine.filter((scope, k) => paths.some((other) => other[k] !== scope));
  return found.join("/") || site.label;
}

function links(title, sites, model, act) {
  if (!sites.length) return undefined;
  const lines = [...new Set(sites)].map((each) => {
    if (typeof each === "string") return element("li", { class: "dim" }, each);
    const site = model.sites[each];
    return element(
      "li",
      {},
      element(
        "button",
        { type: "button", class: "link", title: seenText(site.seen), click: () => act.open(site) },
        element("span", { class: "dim" }, site.path),
        site.label,
      ),
    );
  });
  return part(title, element("ul", { class: "links" }, lines));
}
