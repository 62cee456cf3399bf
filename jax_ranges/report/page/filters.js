// Which sites are shown, and in which order.

import { grouped } from "./numbers.js";

/** No filter at all. */
export const OPEN = { search: "", scope: -1, only: "all", primitive: "", dtype: "", direction: "" };

/** The choices of "show": what a site must be, given the format by which it is judged. */
export const ONLY = {
  all: { says: () => "all operations", fits: () => true },
  over: {
    says: (format) => `beyond ${format.name}`,
    fits: (site, format) => site.over.includes(format),
  },
  trouble: {
    says: () => "NaN or infinity",
    fits: (site) => site.seen.nan || site.seen.infinite,
  },
  beyond: { says: () => "beyond the scale", fits: (site) => site.beyond },
  unseen: { says: () => "not observed", fits: (site) => !site.seen.observed },
  changed: { says: () => "changed", fits: (site) => site.changes.length > 0, compared: true },
};

/** The sites that pass all filters. */
export function passing(model, filters, format) {
  const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
  const scopes = filters.scope < 0 ? undefined : scopesIn(model.scopes, filters.scope);
  const only = ONLY[filters.only];
  return model.sites.filter(
    (site) =>
      (!scopes || scopes.has(site.scope)) &&
      (!filters.primitive || site.primitive === filters.primitive) &&
      (!filters.dtype || site.dtype === filters.dtype) &&
      (!filters.direction || site.backward === (filters.direction === "backward")) &&
      only.fits(site, format) &&
      words.every((word) => site.searched.includes(word)),
  );
}

/** A scope and all inside of it; each comes after the one above it. */
function scopesIn(scopes, top) {
  const found = new Set([top]);
  for (const scope of scopes) if (found.has(scope.above)) found.add(scope.index);
  return found;
}

/** Sorted by a column's key; sites without one come last, equal ones stay in program order. */
export function sorted(sites, key, descending) {
  if (!key) return sites;
  const sign = descending ? -1 : 1;
  const keyed = sites.map((site) => [key(site), site]);
  const [known, unknown] = [
    keyed.filter(([k]) => !isNothing(k)),
    keyed.filter(([k]) => isNothing(k)),
  ];
  known.sort(([a, one], [b, other]) => sign * compare(a, b) || one.index - other.index);
  return [...known, ...unknown].map(([, site]) => site);
}

function isNothing(key) {
  return key === undefined || Number.isNaN(key);
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

const NATURAL = new Intl.Collator("en", { numeric: true });

/** The places of all sites in the order of their names, where numbers count as such. */
export function byName(sites) {
  const order = [...sites].sort((a, b) => NATURAL.compare(a.name, b.name));
  const places = new Map(order.map((site, place) => [site.index, place]));
  return (site) => places.get(site.index);
}

/** The options of a menu: each value there is, the frequent ones first. */
export function tallied(sites, key) {
  const counts = new Map();
  for (const site of sites) counts.set(site[key], (counts.get(site[key]) ?? 0) + 1);
  const order = [...counts].sort(([a, n], [b, m]) => m - n || compare(a, b));
  return order.map(([value, count]) => [value, `${value} (${grouped(count)})`]);
}
