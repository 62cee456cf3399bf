// What a reader should know first: how many operations each format would not hold, which layer
// stands out, and what is out of the ordinary. All of it can be clicked.

import { byId, element, refill } from "./elements.js";
import { compact, grouped, operations, power, ratioText } from "./numbers.js";
import { columns } from "./plots.js";

/** Draws the cards; `act` has what a click does. */
export function drawSummary(model, state, act) {
  const cards = [
    formatCards(model, state, act),
    model.compared ? movedCard(model, act) : outlierCard(model, act),
    oddCard(model, state, act),
  ];
  refill(byId("summary"), cards.filter(Boolean));
}

function formatCards(model, state, act) {
  const floats = model.sites.filter((site) => site.float && site.seen.known).length;
  const buttons = model.formats.map((format, i) =>
    formatButton(model, state, act, format, i, floats),
  );
  return element(
    "section",
    { class: "card formats" },
    element(
      "h2",
      {},
      "Would overflow without a scale",
      element("small", {}, ` · of ${grouped(floats)} float operations`),
    ),
    element("div", { class: "format-row" }, buttons),
  );
}

function formatButton(model, state, act, format, i, floats) {
  const count = model.root.over[i];
  const pressed = state.format === i;
  return element(
    "button",
    {
      type: "button",
      class: `format${pressed ? " chosen" : ""}${count ? " some" : ""}`,
      "aria-pressed": String(pressed && state.filters.only === "over"),
      title: `${format.name}: ${format.texts.least} to ${format.texts.largest}\n${operations(count)} of ${grouped(floats)} have values beyond`,
      click: () => act.judge(i),
    },
    element("span", { class: "figure" }, count ? `▲ ${grouped(count)}` : "✓ 0"),
    element("span", { class: "format-name" }, format.name),
    element("span", { class: "dim" }, endsText(format)),
  );
}

function endsText(format) {
  const symmetric = format.least === -format.largest;
  return symmetric
    ? `±${compact(format.largest)}`
    : `${compact(format.least)} … ${compact(format.largest)}`;
}

function outlierCard(model, act) {
  const found = model.outlier;
  if (!found) return largestCard(model, act);
  const site = model.sites[found.site];
  const isLayer = found.index === null;
  const [title, figure, rest] = isLayer
    ? ["Layer that stands out", found.layer, site.name.slice(found.layer.length).replace(/^\//, "")]
    : ["Iteration or example that stands out", `index ${found.index}`, site.name];
  const others = found.sizes.filter((size) => size !== null).length - 1;
  const says = `reaches ${compact(found.sizes[found.top])}: ${ratioText(found.ratio)} the median of the ${grouped(others)} others`;
  return element(
    "button",
    {
      type: "button",
      class: "card outlier",
      id: "outlier",
      title: site.name,
      click: () => act.open(site),
    },
    element("h2", {}, title),
    element(
      "div",
      { class: "outlier-body" },
      element(
        "div",
        {},
        element("span", { class: "figure" }, figure),
        element("span", { class: "line" }, element("code", {}, rest)),
        element("span", { class: "line dim" }, says),
      ),
      columns(found.sizes, found.top),
    ),
  );
}

function largestCard(model, act) {
  const site = model.root.top;
  if (!site) return undefined;
  return element(
    "button",
    {
      type: "button",
      class: "card outlier",
      id: "outlier",
      title: site.name,
      click: () => act.open(site),
    },
    element("h2", {}, "Largest value on the scale"),
    element("span", { class: "figure" }, compact(site.seen.size)),
    element("span", { class: "line" }, element("code", {}, site.name)),
  );
}

function movedCard(model, act) {
  const worst = model.sites.reduce((a, b) => (b.score > a.score ? b : a), model.sites[0]);
  if (!worst?.changes.length) {
    return element(
      "section",
      { class: "card outlier" },
      element("h2", {}, "Moved most"),
      element("span", { class: "figure" }, "✓ nothing moved"),
    );
  }
  return element(
    "button",
    {
      type: "button",
      class: "card outlier",
      id: "outlier",
      title: worst.name,
      click: () => act.open(worst),
    },
    element("h2", {}, "Moved most"),
    element("span", { class: "figure" }, worst.changes.join(", ")),
    element("span", { class: "line" }, element("code", {}, worst.name)),
    element(
      "span",
      { class: "line dim" },
      `score ${compact(worst.score)}: its reach beyond the old range ÷ the largest old magnitude`,
    ),
  );
}

function oddCard(model, state, act) {
  const { root } = model;
  const trouble = model.sites.filter((site) => site.seen.nan || site.seen.infinite).length;
  const lines = [
    ["trouble", trouble, "NaN or infinity", "one or both were seen there"],
    ["beyond", root.beyond, "beyond the scale", beyondText(model.gauge)],
    ["unseen", root.unseen, "not observed", "they never ran, or had no elements"],
    ...(model.compared ? [["changed", root.changed, "changed", "since before"]] : []),
  ];
  return element(
    "section",
    { class: "card odd" },
    element("h2", {}, "Out of the ordinary"),
    lines.map(([only, count, says, why]) =>
      element(
        "button",
        {
          type: "button",
          class: `fact ${only === "trouble" && count ? "alarm" : ""}`,
          title: why,
          disabled: count === 0,
          "aria-pressed": String(state.filters.only === only),
          click: () => act.only(only),
        },
        element("b", {}, grouped(count)),
        ` ${says}`,
      ),
    ),
  );
}

function beyondText({ high }) {
  return `larger than ${power(high)}, where the scale of the bars ends: a padding mask, or a value that ran away`;
}
