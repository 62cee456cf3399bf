// Elements from plain descriptions. Texts become text nodes, never markup: names are hostile.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; attributes that are functions listen to the event of their name. */
export function element(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function drawn(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(
    ...children.flat().filter((child) => child != null && child !== false && child !== ""),
  );
  return made;
}

/** New children in the place of the old ones; the focus stays on the button where it was. */
export function refill(place, children) {
  const buttons = () => [...place.querySelectorAll("button")];
  const focused = buttons().indexOf(document.activeElement);
  place.replaceChildren(...children);
  if (focused >= 0) buttons()[focused]?.focus({ preventScroll: true });
}

/** Places something between two shares of the width of what it is in. */
export function spanning(made, from, to) {
  made.style.left = `${(100 * from).toFixed(3)}%`;
  made.style.width = `${(100 * Math.max(to - from, 0)).toFixed(3)}%`;
  return made;
}

/** The element of that id. */
export function byId(id) {
  return document.getElementById(id);
}
