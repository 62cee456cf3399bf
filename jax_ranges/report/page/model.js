// The document as objects: sites that know their names and numbers, scopes that sum up theirs.

import { numeric } from "./numbers.js";

/** All that the page shows. */
export function modelOf(plain) {
  const scopes = plain.scopes.map(([label, above], index) => ({
    index,
    label,
    above,
    path: label,
  }));
  for (const scope of scopes) {
    if (scope.above >= 0) scope.path = `${scopes[scope.above].path}/${scope.label}`;
  }
  const sites = plain.sites.map((each, index) => siteOf(each, index, scopes));
  const model = { ...plain, sites, scopes, formats: plain.formats.map(formatOf) };
  link(model);
  for (const site of sites) site.beyond = isBeyond(site, plain.gauge);
  model.root = summedUp(model);
  return model;
}

function siteOf(plain, index, scopes) {
  const scope = plain.scope < 0 ? "" : `${scopes[plain.scope].path}/`;
  const seen = seenOf(plain.seen);
  return {
    source: "",
    short: "",
    shape: "[]",
    dtype: "",
    operands: [],
    reads: [],
    over: [],
    changes: [],
    lead: [],
    backward: false,
    float: false,
    ...plain,
    index,
    path: scope,
    name: scope + plain.label,
    searched: [scope + plain.label, plain.primitive, plain.source, ...(plain.reads ?? [])]
      .join("\n")
      .toLowerCase(),
    seen,
    before: plain.before && seenOf(plain.before),
    score: plain.score === undefined ? undefined : numeric(String(plain.score)),
    each: (plain.each ?? []).map(seenOf),
    users: [],
    family: [],
  };
}

/** What was seen somewhere: the ends as numbers and as exact texts. */
function seenOf(plain = {}) {
  const known = plain.min !== undefined;
  const low = known ? numeric(plain.min) : NaN;
  const high = known ? numeric(plain.max) : NaN;
  const size = known ? Math.max(Math.abs(low), Math.abs(high)) : NaN;
  return {
    known,
    low,
    high,
    size,
    lowText: plain.min,
    highText: plain.max,
    nan: Boolean(plain.nan),
    infinite: size === Infinity,
    observed: known || Boolean(plain.nan),
  };
}

function formatOf(plain) {
  const numbers = Object.entries(plain).map(([key, value]) => [
    key,
    key === "name" ? value : numeric(String(value)),
  ]);
  return { ...Object.fromEntries(numbers), texts: plain };
}

function link(model) {
  for (const site of model.sites) {
    for (const operand of new Set(site.operands)) {
      if (typeof operand === "number") model.sites[operand].users.push(site.index);
    }
  }
  for (const family of model.families) {
    for (const index of family) model.sites[index].family = family;
  }
}

/** Off the scale that all share: a padding mask, or a sum that has run away. */
function isBeyond(site, gauge) {
  return isGauged(site, gauge) && site.seen.size > 2 ** gauge.high;
}

/** Whether its magnitude is compared with those of others: indices are not, next to floats. */
export function isGauged(site, gauge) {
  return site.seen.known && (site.float || !gauge.floats);
}

/** What was seen, exactly. */
export function seenText(seen) {
  if (!seen.observed) return "not observed";
  if (!seen.known) return "only NaN";
  return `${seen.lowText} to ${seen.highText}${seen.nan ? ", and NaN" : ""}`;
}

// -- scopes -----------------------------------------------------------------------------------

function summedUp(model) {
  const root = node({ index: -1, label: "all", path: "" }, model);
  const nodes = model.scopes.map((scope) => node(scope, model));
  const at = (index) => (index < 0 ? root : nodes[index]);
  nodes.forEach((each, index) => at(model.scopes[index].above).inside.push(each));
  for (const site of model.sites) {
    for (let scope = site.scope; ; scope = model.scopes[scope].above) {
      add(at(scope), site, model.gauge);
      if (scope < 0) break;
    }
    at(site.scope).own += 1;
  }
  root.inside = root.inside.map(joined);
  return root;
}

function node(scope, model) {
  return {
    index: scope.index,
    label: scope.label,
    path: scope.path,
    inside: [],
    own: 0,
    count: 0,
    over: model.formats.map(() => 0),
    nan: 0,
    infinite: 0,
    beyond: 0,
    unseen: 0,
    changed: 0,
    top: undefined,
    score: 0,
  };
}

function add(scope, site, gauge) {
  scope.count += 1;
  scope.nan += site.seen.nan;
  scope.infinite += site.seen.infinite;
  scope.beyond += site.beyond;
  scope.unseen += !site.seen.observed;
  scope.changed += site.changes.length > 0;
  scope.score = Math.max(scope.score, site.score ?? 0);
  for (const format of site.over) scope.over[format] += 1;
  if (site.beyond || site.seen.infinite || !isGauged(site, gauge)) return;
  if (!scope.top || site.seen.size > scope.top.seen.size) scope.top = site;
}

/** A scope of nothing but one other is joined with it. */
function joined(scope) {
  scope.inside = scope.inside.map(joined);
  if (scope.own || scope.inside.length !== 1) return scope;
  return { ...scope.inside[0], label: `${scope.label}/${scope.inside[0].label}` };
}
