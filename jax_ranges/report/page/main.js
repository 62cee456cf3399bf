// One state, one way: whatever happens changes the state, and the page is drawn from it.

import { byId, element } from "./elements.js";
import { grouped, operations } from "./numbers.js";
import { modelOf } from "./model.js";
import { exponentsOf, scaleOf } from "./scale.js";
import { ONLY, OPEN, byName, passing, sorted, tallied } from "./filters.js";
import { drawSummary } from "./summary.js";
import { Tree } from "./tree.js";
import { Table } from "./table.js";
import { drawDetails } from "./details.js";

const model = modelOf(JSON.parse(byId("document").textContent));
const counted = model.sites.some((site) => site.exponents);

const state = {
  filters: { ...OPEN },
  format: 0,
  sort: model.compared ? "score" : "index",
  descending: model.compared,
  view: "range",
  opened: undefined,
};
let sortKey = model.compared ? (site) => site.score : (site) => site.index;
const sortedByName = lazily(() => byName(model.sites));
state.nameKey = (site) => sortedByName()(site);

const act = {
  judge(format) {
    const again = state.format === format && state.filters.only === "over";
    state.format = format;
    state.filters.only = again || !model.root.over[format] ? "all" : "over";
    update();
  },
  only(only) {
    state.filters.only = state.filters.only === only ? "all" : only;
    update();
  },
  scope(index) {
    state.filters.scope = state.filters.scope === index ? -1 : index;
    update();
  },
  sort(column) {
    const first = Boolean(column.descends);
    const again = state.sort === column.id;
    if (again && state.descending !== first)
      Object.assign(state, { sort: "index", descending: false });
    else Object.assign(state, { sort: column.id, descending: again ? !first : first });
    sortKey = state.sort === "index" ? (site) => site.index : column.key;
    update();
  },
  open(site, focus = false) {
    state.opened = site;
    refresh();
    if (site) table.show(site);
    if (!site) byId("scroller").focus({ preventScroll: true });
    else if (focus) byId("close").focus();
  },
};

const tree = new Tree(model, act);
const table = new Table(model, act);
let shown = [];
let detailed = {};

function update() {
  derive();
  shown = sorted(passing(model, state.filters, state.format), sortKey, state.descending);
  byId("count").textContent =
    shown.length === model.sites.length
      ? operations(shown.length)
      : `${grouped(shown.length)} of ${grouped(model.sites.length)}`;
  drawTools();
  drawSummary(model, state, act);
  tree.update(state);
  refresh();
}

/** What follows from the state. */
function derive() {
  state.chosen = model.formats[state.format];
  state.formatName = state.chosen.name;
  state.scale = scaleOf(model.gauge, state.chosen);
  state.exponents = exponentsOf(model.sites, state.scale);
}

function refresh() {
  const { opened, format } = state;
  if (opened !== detailed.opened || format !== detailed.format) {
    drawDetails(model, state, act); // before the table, from which it takes room
    detailed = { opened, format };
  }
  table.draw(state, shown);
}

// -- tools ------------------------------------------------------------------------------------

function drawTools() {
  const { filters } = state;
  const options = Object.entries(ONLY).filter(([, { compared }]) => !compared || model.compared);
  menu(
    "only",
    options.map(([key, { says }]) => [key, says(state.chosen)]),
    filters.only,
  );
  byId("primitive").value = filters.primitive;
  byId("dtype").value = filters.dtype;
  byId("direction").value = filters.direction;
  if (byId("search").value !== filters.search) byId("search").value = filters.search;
  byId("clear").hidden = Object.keys(OPEN).every((key) => filters[key] === OPEN[key]);
  byId("view-range").setAttribute("aria-pressed", String(state.view === "range"));
  byId("view-heat").setAttribute("aria-pressed", String(state.view === "heat"));
}

function menu(id, options, value) {
  byId(id).replaceChildren(
    ...options.map(([key, text]) => element("option", { value: key }, text)),
  );
  byId(id).value = value;
}

function prepareTools() {
  const both = new Set(model.sites.map((site) => site.backward)).size > 1;
  menu("primitive", [["", "any primitive"], ...tallied(model.sites, "primitive")], "");
  menu("dtype", [["", "any dtype"], ...tallied(model.sites, "dtype")], "");
  menu(
    "direction",
    [
      ["", "forward and backward"],
      ["forward", "forward"],
      ["backward", "backward"],
    ],
    "",
  );
  byId("direction").hidden = !both;
  byId("views").hidden = !counted;
  for (const id of ["only", "primitive", "dtype", "direction"]) {
    byId(id).addEventListener("change", () => {
      state.filters[id] = byId(id).value;
      update();
    });
  }
  byId("search").addEventListener("input", () => {
    state.filters.search = byId("search").value;
    update();
  });
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", clear);
  byId("clear-nothing").addEventListener("click", clear);
  byId("view-range").addEventListener("click", () => look("range"));
  byId("view-heat").addEventListener("click", () => look("heat"));
  byId("open-all").addEventListener("click", () => {
    tree.openAll(true);
    tree.draw(state);
  });
  byId("close-all").addEventListener("click", () => {
    tree.openAll(false);
    tree.draw(state);
  });
  byId("fold").addEventListener("click", fold);
  byId("theme").addEventListener("click", turn);
  byId("help").addEventListener("click", () => byId("keys").showModal());
}

function clear() {
  state.filters = { ...OPEN };
  update();
}

function look(view) {
  state.view = view;
  update();
}

function fold() {
  const folded = byId("scopes").classList.toggle("folded");
  byId("fold").setAttribute("aria-expanded", String(!folded));
}

function turn() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

function lazily(make) {
  let made;
  return () => (made ??= make());
}

// -- keys -------------------------------------------------------------------------------------

const KEYS = {
  "/": () => byId("search").select(),
  t: () => byId("tree").focus(),
  h: () => counted && look(state.view === "heat" ? "range" : "heat"),
  d: turn,
  "?": () => byId("keys").showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.key === "Escape") return escape(event);
  const typing = event.target.matches("input, select, textarea");
  if (typing && event.target.id === "search" && ["ArrowDown", "Enter"].includes(event.key)) {
    event.preventDefault();
    byId("scroller").focus();
    if (table.sites.length) table.move(0);
  }
  if (typing || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

function escape(event) {
  event.preventDefault();
  if (state.opened) act.open(undefined);
  else clear();
  byId("scroller").focus({ preventScroll: true });
}

// -- start ------------------------------------------------------------------------------------

function start() {
  document.title = model.title;
  byId("title").textContent = model.title;
  const dtypes = tallied(model.sites, "dtype")
    .slice(0, 4)
    .map(([dtype]) => dtype)
    .join(", ");
  byId("subtitle").textContent = `${operations(model.sites.length)} · ${dtypes}`;
  byId("scopes").hidden = model.root.inside.length === 0;
  if (matchMedia("(max-width: 760px)").matches) fold();
  prepareTools();
  update();
  document.addEventListener("keydown", pressed);
}

start();
