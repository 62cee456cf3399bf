// What follows from counts of exponents.

/** How many values were counted. */
export function totalOf(found) {
  const finite = (found.positive ?? []).reduce(
    (sum, count, k) => sum + count + found.negative[k],
    0,
  );
  return finite + found.zero + found.neg_inf + found.pos_inf + found.nan;
}

/** Whether values of an exponent fit a format, lie beyond it, or are below its smallest number. */
export function kindOf(site, exponent, format) {
  if (!site.float) return "fit";
  if (exponent > format.top) return "over";
  return exponent < format.bottom ? "below" : "fit";
}
