// The table: only the lines in view are in the document, so that 10,000 sites are as quick as ten.

import { byId, element, refill } from "./elements.js";
import { limitLines } from "./bars.js";
import { columnsFor, magnitudes } from "./columns.js";

const SPARE = 6; // lines above and below what is in view

/** Draws into #table; `act.open(site)` opens details, `act.sort(column)` sorts. */
export class Table {
  constructor(model, act) {
    this.model = model;
    this.act = act;
    this.scroller = byId("scroller");
    this.active = -1;
    this.sites = [];
    this.scroller.addEventListener("scroll", () => this.drawLines(), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.state && this.resized()).observe(this.scroller);
  }

  draw(state, sites) {
    const other = sites !== this.sites;
    const active = this.sites[this.active];
    this.state = state;
    this.sites = sites;
    this.columns = columnsFor(this.model, state, this.scroller.clientWidth);
    if (other) {
      this.scroller.scrollTop = 0;
      this.active = active ? sites.indexOf(active) : -1;
    }
    this.drawHead();
    this.drawLines();
    this.scroller.setAttribute("aria-rowcount", sites.length + 1);
    byId("nothing").hidden = sites.length > 0;
    this.drawn = this.room();
  }

  /** Draws anew if there is more or less room than there was. */
  resized() {
    if (this.room() !== this.drawn) this.draw(this.state, this.sites);
  }

  room() {
    return `${this.scroller.clientWidth} ${this.scroller.clientHeight}`;
  }

  drawHead() {
    byId("widths").replaceChildren(
      ...this.columns.map(({ width }) => {
        const made = element("col");
        if (width) made.style.width = `${width}px`;
        return made;
      }),
    );
    const cells = this.columns.map((column) => this.heading(column));
    refill(byId("head"), [element("tr", { role: "row", "aria-rowindex": 1 }, cells)]);
    const { format, scale, exponents, view } = this.state;
    const lines =
      view === "heat"
        ? limitLines(this.model.formats.map(magnitudes), format, (end) => exponents.place(end))
        : limitLines(this.model.formats, format, (end) => scale.place(end), 0.5);
    byId("table").style.setProperty("--limits", lines);
  }

  heading(column) {
    const { sort, descending } = this.state;
    const isSorted = sort === column.id;
    const order = isSorted ? (descending ? "descending" : "ascending") : "none";
    const arrow = isSorted ? (descending ? " ↓" : " ↑") : "";
    const button = element(
      "button",
      { type: "button", title: column.hint, click: () => this.act.sort(column) },
      column.title,
      element("span", { class: "arrow", "aria-hidden": "true" }, arrow),
    );
    return element(
      "th",
      {
        role: "columnheader",
        class: column.kind,
        "aria-sort": column.key ? order : undefined,
        "aria-label": column.title ? undefined : "Marks",
        scope: "col",
      },
      column.key ? button : element("span", {}, column.title),
      column.head?.(this.state),
    );
  }

  drawLines() {
    const { scroller } = this;
    const height = this.height();
    const first = Math.max(Math.floor(scroller.scrollTop / height) - SPARE, 0);
    const last = Math.min(
      first + Math.ceil(scroller.clientHeight / height) + 2 * SPARE,
      this.sites.length,
    );
    const lines = [];
    for (let i = first; i < last; i++) lines.push(this.line(this.sites[i], i));
    const blank = (count) => blankLine(count * height, this.columns.length);
    byId("body").replaceChildren(blank(first), ...lines, blank(this.sites.length - last));
    const active = this.sites[this.active];
    if (active) scroller.setAttribute("aria-activedescendant", `site-${active.index}`);
    else scroller.removeAttribute("aria-activedescendant");
  }

  height() {
    return Number.parseFloat(getComputedStyle(this.scroller).getPropertyValue("--line-height"));
  }

  line(site, i) {
    const chosen = this.state.opened === site;
    const kinds = [
      i === this.active && "active",
      chosen && "chosen",
      !site.seen.observed && "unseen",
    ];
    const cells = this.columns.map((column) =>
      element("td", { role: "gridcell", class: column.kind }, column.cell(site, this.state)),
    );
    return element(
      "tr",
      {
        role: "row",
        id: `site-${site.index}`,
        class: kinds.filter(Boolean).join(" "),
        "aria-rowindex": i + 2,
        "aria-selected": String(chosen),
        click: () => this.act.open(site),
      },
      cells,
    );
  }

  move(to) {
    this.active = Math.min(Math.max(to, 0), this.sites.length - 1);
    this.reveal();
  }

  /** Makes the line of a site the active one, if it is among those that are shown. */
  show(site) {
    this.active = this.sites.indexOf(site);
    if (this.active >= 0) this.reveal();
  }

  /** Scrolls to the active line. */
  reveal() {
    const height = this.height();
    const top = this.active * height;
    const room = this.scroller.clientHeight - byId("head").offsetHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + height > this.scroller.scrollTop + room)
      this.scroller.scrollTop = top + height - room;
    this.drawLines();
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.scroller) return;
    const page = Math.max(Math.floor(this.scroller.clientHeight / this.height()) - 2, 1);
    const to = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.sites.length - 1,
    }[event.key];
    if (to !== undefined && this.sites.length) this.move(to);
    else if (event.key === "Enter" && this.sites[this.active])
      this.act.open(this.sites[this.active], true);
    else return;
    event.preventDefault();
  }
}

function blankLine(height, columns) {
  const cell = element("td", { colspan: columns });
  cell.style.height = `${height}px`;
  return element("tr", { class: "blank", "aria-hidden": "true" }, cell);
}
