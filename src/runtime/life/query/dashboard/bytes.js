// Bytes of a record: what they seem to say, and as they are.

import { bytes as sized, h } from "./dom.js";

const HEX_SHOWN = 512;

/** The bytes of `0x…`. */
function bytesOf(hex) {
  const digits = hex.slice(2);
  const bytes = new Uint8Array(digits.length / 2);
  for (let place = 0; place < bytes.length; place += 1) bytes[place] = Number.parseInt(digits.slice(2 * place, 2 * place + 2), 16);
  return bytes;
}

const isPrintable = (text) => !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\ufffd]/.test(text);

function utf8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** A number as jobs write it by default, with the bytes that it takes. */
function varint(bytes) {
  if (bytes.length === 0) return null;
  const [first] = bytes;
  if (first < 251) return { number: BigInt(first), length: 1 };
  const width = { 251: 2, 252: 4, 253: 8 }[first];
  if (width === undefined || bytes.length < 1 + width) return null;
  let number = 0n;
  for (let place = width; place > 0; place -= 1) number = (number << 8n) | BigInt(bytes[place]);
  return { number, length: 1 + width };
}

/** What whole bytes seem to be: `[format, text]`. Which codec wrote them, only the job knows. */
export function guess(bytes) {
  if (bytes.length === 0) return ["empty", ""];
  const text = utf8(bytes);
  if (text !== null && /^\s*[[{]/.test(text)) {
    try {
      return ["JSON", JSON.stringify(JSON.parse(text), null, 1)];
    } catch {
      // It only begins like that.
    }
  }
  const head = varint(bytes);
  if (head !== null && head.number === BigInt(bytes.length - head.length)) {
    const rest = utf8(bytes.subarray(head.length));
    if (rest !== null && isPrintable(rest)) return ["text behind its length", rest];
  }
  if (text !== null && isPrintable(text)) return ["text", text];
  if (head !== null && head.length === bytes.length) return ["packed number", String(head.number)];
  return [null, null];
}

/** Bytes as the server shows them, decoded beside raw. */
export function shown(title, given) {
  if (given === null) return h("div", { class: "bytes" }, h("h4", {}, title), h("p", { class: "nothing" }, "null"));
  const bytes = bytesOf(given.hex);
  const isWhole = bytes.length === given.bytes;
  const [format, text] = isWhole ? guess(bytes) : given.text === null ? [null, null] : ["text", given.text];
  const hex = given.hex.slice(2, 2 + 2 * HEX_SHOWN).replace(/(..)(?=.)/g, "$1 ");
  const isHexWhole = isWhole && bytes.length <= HEX_SHOWN;
  return h("div", { class: "bytes" },
    h("h4", {}, title, h("small", {}, ` ${[format, sized(given.bytes), !isWhole && `the first ${sized(bytes.length)}`].filter(Boolean).join(", ")}`)),
    h("pre", { class: "decoded", tabindex: "0", "aria-label": `${title}, decoded` }, text ?? "no text, JSON or number"),
    h("pre", { class: "raw", tabindex: "0", "aria-label": `${title}, raw` }, bytes.length === 0 ? "" : hex + (isHexWhole ? "" : " …")));
}
