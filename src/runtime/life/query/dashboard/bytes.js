// Bytes of a record: what they seem to say, which the server told, and as they are.

import { bytes as sized, h } from "./dom.js";

const HEX_SHOWN = 512;

/** The bytes of `0x…`. */
function bytesOf(hex) {
  const digits = hex.slice(2);
  const bytes = new Uint8Array(digits.length / 2);
  for (let place = 0; place < bytes.length; place += 1) bytes[place] = Number.parseInt(digits.slice(2 * place, 2 * place + 2), 16);
  return bytes;
}

/** Bytes as the server shows them, decoded beside raw. */
export function shown(title, given) {
  if (given === null) return h("div", { class: "bytes" }, h("h4", {}, title), h("p", { class: "nothing" }, "null"));
  const bytes = bytesOf(given.hex);
  const isWhole = bytes.length === given.bytes;
  const hex = given.hex.slice(2, 2 + 2 * HEX_SHOWN).replace(/(..)(?=.)/g, "$1 ");
  const isHexWhole = isWhole && bytes.length <= HEX_SHOWN;
  return h("div", { class: "bytes" },
    h("h4", {}, title, h("small", {}, ` ${[given.format, sized(given.bytes), !isWhole && `the first ${sized(bytes.length)}`].filter(Boolean).join(", ")}`)),
    h("pre", { class: "decoded", tabindex: "0", "aria-label": `${title}, decoded` }, given.decoded ?? "no text, JSON or number"),
    h("pre", { class: "raw", tabindex: "0", "aria-label": `${title}, raw` }, bytes.length === 0 ? "" : hex + (isHexWhole ? "" : " …")));
}
