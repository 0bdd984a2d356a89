// Event time: how far each split is, who holds it, and what is open until it goes on.

import { at, count, duration, h, isEnd, moment, nothing, put, say } from "./dom.js";
import { holder } from "./job.js";
import { ask } from "./app.js";

/** The rungs that are shown; a job may have thousands of splits. */
const RUNGS_MAX = 40;
/** The rows of a store that are asked for: those that are due first. */
const OPEN_MAX = 8;

let stores = [];
let last = null;
/** What was found open, by store, and where it is shown: what it waits for goes on. */
const found = new Map();

/** The stores that have rows with times. */
export function timedStores(all) {
  stores = all.filter((store) => store.kind === "with time").map((store) => store.name);
  if (last) showOpen();
}

export function showTime(status) {
  const isNew = last === null;
  last = status;
  // Letters and topics between processes do not say how far time is.
  const own = new Set(status.graph.nodes.filter((node) => node.kind === "source").map((node) => node.name));
  const told = status.splits.filter((split) => own.has(split.source) || split.watermark !== null);
  if (!told.some((split) => split.watermark !== null || split.holds_time)) {
    say(at("time-about"), "");
    put(at("ladder"), nothing(status.phase === "running" ? "No step of this job asks for the time of events." : "No split is read now."));
    put(at("open"));
    return;
  }
  const held = holder(status);
  say(at("time-about"), held
    ? `Held by ${held.split}${held.watermark === null ? ", which had no record yet" : `, at ${moment(held.watermark)}`}.`
    : "No split holds it.");
  put(at("ladder"), ladder(told));
  if (isNew || !at("open").firstChild) showOpen();
  showFound();
}

const ended = (split) => split.state === "ended" || (split.watermark !== null && isEnd(split.watermark));

function ladder(told) {
  const known = told.filter((split) => split.watermark !== null && !ended(split)).map((split) => split.watermark);
  const [from, to] = [Math.min(...known), Math.max(...known)];
  const place = (split) => {
    if (ended(split)) return 100;
    if (split.watermark === null) return 0;
    return to === from ? 96 : 4 + ((split.watermark - from) * 92) / (to - from);
  };
  // Who has no time yet stands first, then the holder's order: the last rung is the furthest.
  const rungs = [...told].sort((a, b) => Number(b.holds_time) - Number(a.holds_time) || place(a) - place(b) || a.split.localeCompare(b.split));
  const rows = rungs.slice(0, RUNGS_MAX).map((split) => {
    const behind = split.watermark !== null && known.length && !ended(split) ? to - split.watermark : null;
    const text = ended(split) ? "ended" : split.watermark === null ? "no record yet" : behind === 0 ? "furthest" : `${duration(behind)} behind`;
    const state = [split.holds_time && "holds time", split.state === "idle" && "idle, not waited for"].filter(Boolean).join(", ");
    return h("li", { class: `rung ${split.state} ${split.holds_time ? "holds" : ""}` },
      h("span", { class: "who", title: `${split.source}: ${split.split}` }, split.split),
      h("span", { class: "rail" }, h("i", { css: { width: `${place(split).toFixed(2)}%` } }), h("b", { css: { left: `${place(split).toFixed(2)}%` } })),
      h("span", { class: "how" }, text, state && h("em", {}, ` ${state}`)));
  });
  const more = rungs.length - RUNGS_MAX;
  const axis = known.length ? h("p", { class: "axis" }, h("span", {}, moment(from)), h("span", {}, to === from ? "" : moment(to))) : null;
  return [h("ol", { class: "ladder" }, rows), axis, more > 0 ? h("p", { class: "rest" }, `and ${count(more)} more splits`) : null];
}

/** A way to see what is open. It is asked only when somebody wants it: the job keeps a copy of its changes for readers. */
function showOpen() {
  const parts = stores.map((store) => {
    const rows = h("div", { class: "open-rows" });
    const button = h("button", { type: "button", on: { click: () => look(store, rows, button) } }, `What is open in ${store}?`);
    return h("div", {}, button, rows);
  });
  put(at("open"), parts);
}

async function look(store, place, button) {
  button.disabled = true;
  put(place, nothing("Asking for the rows of the next commit…"));
  try {
    const answer = await ask(`stores/${encodeURIComponent(store)}?from=${-8e15}&to=${8e15}&limit=${OPEN_MAX}`);
    found.set(store, { place, answer });
    showFound();
  } catch (error) {
    found.delete(store);
    put(place, h("p", { class: "wrong" }, error.message));
  }
  button.disabled = false;
}

function showFound() {
  for (const { place, answer } of found.values()) {
    put(place, answer.rows.length ? openRows(answer) : nothing("Nothing waits for a time."));
  }
}

function openRows(answer) {
  const held = holder(last);
  const now = held?.watermark ?? null;
  const rows = answer.rows.map((row) => {
    const waits = now === null ? `for the first record of ${held?.split ?? "a split"}`
      : row.time > now ? `until ${held.split} is ${duration(row.time - now)} further` : null;
    return h("li", {}, h("b", {}, moment(row.time)), " ", h("code", {}, text(row.key)), " ", h("span", { class: "value" }, text(row.value)), h("em", {}, waits ? ` waits ${waits}` : " its time has come since"));
  });
  return [h("ol", { class: "open" }, rows),
    h("p", { class: "rest" }, `As of epoch ${answer.epoch}${rows.length === OPEN_MAX ? `; the first ${OPEN_MAX} by time` : ""}`)];
}

const text = (value) => {
  const shown = typeof value === "string" ? value : JSON.stringify(value);
  return shown.length > 60 ? `${shown.slice(0, 59)}…` : shown;
};
