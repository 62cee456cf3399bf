// Scales of powers of two: one with both signs for ranges, one of exponents for counts.

import { power } from "./numbers.js";

/** From -2**high over zero to 2**high; what is smaller than 2**low is drawn at zero. */
export class Scale {
  constructor(low, high) {
    this.low = low;
    this.high = high;
  }

  /** Where a number is: 0 at the left end or beyond it, 1 at the right end. */
  place(x) {
    if (x === 0) return 0.5;
    const share = (Math.log2(Math.abs(x)) - this.low) / (this.high - this.low);
    return 0.5 + (Math.sign(x) * Math.min(Math.max(share, 0), 1)) / 2;
  }

  /** Whether it is farther out than the ends. */
  isBeyond(x) {
    return Math.abs(x) > 2 ** this.high;
  }

  /** Places and texts of the marks, in `count` steps from zero to an end. */
  marks(count = 2) {
    const steps = Array.from({ length: count }, (_, k) => k + 1);
    const exponents = steps.map((k) => Math.round(this.low + ((this.high - this.low) * k) / count));
    const right = exponents.map((e) => [this.place(2 ** e), power(e)]);
    const left = exponents.map((e) => [this.place(-(2 ** e)), `−${power(e)}`]);
    return [...left.reverse(), [0.5, "0"], ...right];
  }
}

const LEAST = 12; // exponents: on fewer, zero would be next to all there is
const ROOM = 32; // exponents: a format whose end is farther away would squeeze all bars

/** The scale of all bars: that of the values, and the ends of the format where they are near. */
export function scaleOf(gauge, format) {
  const end = Math.ceil(Math.log2(Math.max(format.largest, -format.least))) + 1;
  const high = end > gauge.high && end <= gauge.high + ROOM ? end : gauge.high;
  return new Scale(Math.min(gauge.low - 1, high - LEAST), high);
}

const MOST_EXPONENTS = 64;

/** The exponents of a heat map; what is below the first or above the last is drawn there. */
export class Exponents {
  constructor(first, last) {
    this.first = first;
    this.last = last;
    this.count = last - first + 1;
  }

  /** Where a number is, as a share of the width. */
  place(x) {
    return (Math.log2(x) - this.first) / this.count;
  }

  /** The column of an exponent. */
  column(exponent) {
    return Math.min(Math.max(exponent - this.first, 0), this.count - 1);
  }

  marks() {
    const step = this.count > 40 ? 16 : 8;
    const all = Array.from({ length: this.count }, (_, k) => this.first + k);
    return all.filter((e) => e % step === 0).map((e) => [(e - this.first) / this.count, power(e)]);
  }
}

/** Exponents as far down as there are any, but no more than there is room for. */
export function exponentsOf(sites, scale) {
  const firsts = sites
    .filter((site) => site.exponents?.positive)
    .map((site) => site.exponents.first);
  const lowest = firsts.reduce((a, b) => Math.min(a, b), scale.low);
  return new Exponents(Math.max(lowest, scale.high - MOST_EXPONENTS + 1), scale.high);
}
