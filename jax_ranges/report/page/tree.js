// The tree of scopes. A scope says what is worst inside of it, open or closed.

import { byId, element } from "./elements.js";
import { compact, grouped, operations, power } from "./numbers.js";
import { seenText } from "./model.js";

const OPEN_AT_FIRST = 24; // lines

/** A tree that is drawn into #tree; `act.scope(index)` chooses a scope. */
export class Tree {
  constructor(model, act) {
    this.model = model;
    this.act = act;
    this.open = new Set([-1]);
    this.active = 0;
    this.place = byId("tree");
    this.above = new Map();
    this.openLevels();
    this.place.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** Level after level, as long as all fits without scrolling. */
  openLevels() {
    let level = [this.model.root];
    for (let shown = 1; level.length;) {
      const next = level.flatMap((node) => node.inside);
      shown += next.length;
      if (shown > OPEN_AT_FIRST && level.length > 1) return;
      for (const node of level) if (node.inside.length) this.open.add(node.index);
      level = next;
    }
  }

  openAll(open) {
    const all = [this.model.root];
    for (const node of all) all.push(...node.inside);
    this.open = new Set(
      open ? all.filter((node) => node.inside.length).map((node) => node.index) : [-1],
    );
  }

  lines(node = this.model.root, depth = 0) {
    const inside = this.open.has(node.index) ? node.inside : [];
    for (const child of inside) this.above.set(child.index, node.index);
    return [[node, depth], ...inside.flatMap((child) => this.lines(child, depth + 1))];
  }

  /** Draws it anew if what it shows depends on what changed. */
  update(state) {
    const { format, filters } = state;
    const shown = `${format} ${filters.scope}`;
    if (shown !== this.drawn) this.draw(state);
    this.drawn = shown;
  }

  draw(state) {
    this.state = state;
    this.shown = this.lines();
    this.active = Math.min(this.active, this.shown.length - 1);
    this.place.replaceChildren(...this.shown.map(([node, depth], i) => this.line(node, depth, i)));
    this.place.setAttribute("aria-activedescendant", `scope-${this.shown[this.active][0].index}`);
  }

  line(node, depth, i) {
    const chosen = this.state.filters.scope === node.index;
    const line = element(
      "li",
      {
        role: "treeitem",
        id: `scope-${node.index}`,
        title: this.says(node),
        class: `${chosen ? "chosen" : ""}${i === this.active ? " active" : ""}`,
        "aria-level": depth + 1,
        "aria-selected": String(chosen),
        "aria-expanded": node.inside.length ? String(this.open.has(node.index)) : undefined,
        click: () => this.choose(i),
      },
      this.knob(node, i),
      element("span", { class: "label" }, node.label),
      this.worst(node),
    );
    line.style.paddingLeft = `${4 + 13 * depth}px`;
    return line;
  }

  knob(node, i) {
    if (!node.inside.length) return element("span", { class: "knob" });
    const open = this.open.has(node.index);
    return element(
      "button",
      {
        type: "button",
        class: "knob",
        tabindex: -1,
        "aria-label": `${open ? "Close" : "Open"} ${node.label}`,
        click: (event) => {
          event.stopPropagation();
          this.active = i;
          this.toggle(node, !open);
        },
      },
      open ? "▾" : "▸",
    );
  }

  worst(node) {
    const over = node.over[this.state.format];
    return element(
      "span",
      { class: "worst" },
      node.nan > 0 && element("span", { class: "mark nan" }, "NaN"),
      node.infinite > 0 && element("span", { class: "mark inf" }, "∞"),
      this.model.compared &&
        node.changed > 0 &&
        element("span", { class: "mark moved" }, `Δ${grouped(node.changed)}`),
      over > 0 && element("span", { class: "mark over" }, `▲${grouped(over)}`),
      element("span", { class: "size" }, node.top ? compact(node.top.seen.size) : ""),
      this.meter(node),
    );
  }

  meter(node) {
    const { low, high } = this.model.gauge;
    const size = node.top?.seen.size;
    const fill = element("i", {
      class: node.top?.over.includes(this.state.format) ? "over" : "fit",
    });
    const share = size > 0 ? (Math.log2(size) - low) / (high - low) : 0;
    fill.style.width = `${100 * Math.min(Math.max(share, size > 0 ? 0.03 : 0), 1)}%`;
    return element("span", { class: "meter" }, fill, node.beyond > 0 && element("b", {}, "▸"));
  }

  says(node) {
    const format = this.model.formats[this.state.format].name;
    const facts = [
      `${node.path || "all scopes"}: ${operations(node.count)}`,
      node.top && `largest: ${seenText(node.top.seen)}\n  ${node.top.name}`,
      node.beyond > 0 &&
        `${grouped(node.beyond)} beyond the scale, which ends at ${power(this.model.gauge.high)}`,
      node.over[this.state.format] > 0 &&
        `${grouped(node.over[this.state.format])} beyond ${format}`,
      node.nan > 0 && `${grouped(node.nan)} with NaN`,
      node.infinite > 0 && `${grouped(node.infinite)} with infinities`,
      node.unseen > 0 && `${grouped(node.unseen)} not observed`,
      node.changed > 0 && `${grouped(node.changed)} changed`,
    ];
    return facts.filter(Boolean).join("\n");
  }

  choose(i) {
    this.active = i;
    this.act.scope(this.shown[i][0].index);
  }

  toggle(node, open) {
    if (open) this.open.add(node.index);
    else this.open.delete(node.index);
    this.draw(this.state);
    this.place.focus(); // not the knob, which is a new one
  }

  move(to) {
    this.active = Math.min(Math.max(to, 0), this.shown.length - 1);
    this.draw(this.state);
    byId(this.place.getAttribute("aria-activedescendant")).scrollIntoView({ block: "nearest" });
  }

  pressed(event) {
    const [node] = this.shown[this.active];
    const open = this.open.has(node.index);
    const does = {
      ArrowDown: () => this.move(this.active + 1),
      ArrowUp: () => this.move(this.active - 1),
      Home: () => this.move(0),
      End: () => this.move(this.shown.length - 1),
      ArrowRight: () =>
        open ? this.move(this.active + 1) : node.inside.length && this.toggle(node, true),
      ArrowLeft: () => (open ? this.toggle(node, false) : this.moveUp(node)),
      Enter: () => this.choose(this.active),
      " ": () => this.choose(this.active),
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  }

  moveUp(node) {
    const above = this.above.get(node.index);
    if (above !== undefined) this.move(this.shown.findIndex(([each]) => each.index === above));
  }
}
