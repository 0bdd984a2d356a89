// Text becomes elements, never markup: what comes from outside (keys, topics, names) is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a child that is no element becomes text. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same within a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, heard] of Object.entries(value)) element.addEventListener(event, heard);
    } else if (name === "css") {
      for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  const shown = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** The element of an id of the page. */
export const at = (id) => document.getElementById(id);

/** Puts other children into an element. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/** Sets text only where it changed, so that a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A table. A column is `{ title, number }`; a row is a list of cells, each text or an element. */
export function table(columns, rows, more = 0) {
  const head = columns.map((column) => h("th", { scope: "col", class: column.number && "number" }, column.title));
  const body = rows.map((row) => {
    const cells = row.map((cell, place) => h("td", { class: columns[place].number && "number" }, cell));
    return h("tr", { class: row.kind }, cells);
  });
  const rest = more > 0 && h("p", { class: "rest" }, `and ${count(more)} more: onceflow top, or the JSON, has them`);
  return [h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)), rest];
}

/** Words where there is nothing to show. */
export const nothing = (text) => h("p", { class: "nothing" }, text);

/** A count and its noun, which takes an s where there are several. */
export const several = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count with its thousands apart. */
export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));

/** A count in few digits: 12.3 k. */
export function short(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4 / 10]]) {
    if (number >= size * 0.9995 && number >= 1000) {
      const value = number / size;
      return `${value.toFixed(value < 9.95 ? 2 : value < 99.5 ? 1 : 0)} ${unit}`;
    }
  }
  return number >= 10 || number === 0 || Number.isInteger(number) ? whole.format(number) : number.toFixed(1);
}

/** Bytes in the unit that fits. */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = number ?? 0;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? whole.format(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A duration given in milliseconds. */
export function duration(millis) {
  if (millis === null || millis === undefined) return "–";
  if (millis < 1) return `${Math.max(0, Math.round(millis * 1000))} µs`;
  if (millis < 9.95) return `${millis.toFixed(1)} ms`;
  if (millis < 1000) return `${Math.round(millis)} ms`;
  const seconds = millis / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0).replace(".0", "")} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** The largest time, which an input has that ended; as a number of JavaScript it is not exact. */
const END = 9e18;

/** Whether a time is that of an input that ended. */
export const isEnd = (millis) => millis >= END;

/** A time of the world, in UTC, with the day where it is another one than that of `now`. */
export function moment(millis, now) {
  if (millis === null || millis === undefined) return "–";
  if (isEnd(millis)) return "the end";
  const date = new Date(millis);
  if (Number.isNaN(date.getTime())) return `${millis} ms`;
  const [day, rest] = date.toISOString().split("T");
  const clock = rest.replace("Z", "").replace(".000", "");
  return now !== undefined && new Date(now).toISOString().startsWith(day) ? clock : `${day} ${clock}`;
}
