// The job in one sentence, and the numbers that say whether it is healthy.

import { at, bytes, count, duration, h, isEnd, put, say, several, short, svg } from "./dom.js";

const PHASES = ["drain", "flush", "positions", "sync", "decide", "markers", "apply"];
/** Rates are those of about so many views. */
const RATE_VIEWS = 5;

/** How long a commit took, in milliseconds. */
export const commitMillis = (cycle) => PHASES.reduce((sum, phase) => sum + cycle[`${phase}_micros`], 0) / 1000;

/** The value below which that part of the sorted values lies. */
export function quantile(values, part) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)];
}

/** What a counter gained in a second, lately; `null` where a single view is known. */
export function rate(seen, read) {
  const now = seen.at(-1);
  const then = seen[Math.max(0, seen.length - 1 - RATE_VIEWS)];
  const millis = now.now - then.now;
  if (millis <= 0) return null;
  return Math.max(0, (read(now) - read(then)) * 1000) / millis;
}

/** The offsets of topics that the job is behind; `null` where no log says. */
export function lag(status) {
  const known = status.splits.filter((split) => split.lag !== null);
  return known.length ? known.reduce((sum, split) => sum + split.lag, 0) : null;
}

/** The split that event time waits for. */
export const holder = (status) => status.splits.find((split) => split.holds_time);

/** Who holds the job up, from the one sentence. */
const isTroubled = (status) =>
  /held|standing still|does not answer|starting again/.test(status.sentence) || status.transactions.some((open) => open.is_hanging);

export function showJob(seen) {
  const status = seen.at(-1);
  const [first, ...rest] = status.sentence.split("; ");
  const sentence = at("sentence");
  if (sentence.dataset.said !== status.sentence) {
    sentence.dataset.said = status.sentence;
    const capital = first.charAt(0).toUpperCase() + first.slice(1);
    put(sentence, capital, rest.map((part) => h("span", { class: "holder" }, part)));
  }
  const phase = at("phase");
  phase.dataset.phase = isTroubled(status) && status.phase === "running" ? "troubled" : status.phase;
  const began = status.lives.at(-1)?.began;
  const upFor = status.phase === "running" && began ? ` for ${duration(Math.floor((status.now - began) / 1000) * 1000)}` : "";
  say(phase, `${status.phase}${upFor}`);
  put(at("tiles"), tiles(seen));
}

function tiles(seen) {
  const status = seen.at(-1);
  const totals = status.totals;
  const behind = lag(status);
  const records = rate(seen, (it) => it.totals.records);
  const last = status.cycles.at(-1);
  const millis = status.cycles.map(commitMillis);
  const sum = (part, name) => part.reduce((all, one) => all + one[name], 0);
  const all = [
    tile("Records", records === null ? "…" : short(records), records === null ? "" : "/s", `${count(totals.records)} committed`, spark(seen)),
    tile("Lag", behind === null ? "–" : short(behind), "", behind === null ? "no topic says" : behind === 0 ? "caught up" : "offsets behind"),
    tile("Last commit", last ? ago(status.now - last.committed_at) : "–", "", several(totals.commits, "commit")),
    tile("Commit takes", duration(quantile(millis, 0.5)), "", `99 % below ${duration(quantile(millis, 0.99))}`),
    eventTime(status),
    tile("State", bytes(sum(status.stores, "memory_bytes") + sum(status.stores, "disk_bytes")), "",
      `${short(sum(status.stores, "rows_in_memory"))} rows in memory`),
    tile("Late · dead", `${short(totals.late_records)} · ${short(totals.dead_letters)}`, "", totals.left_out_records ? `${short(totals.left_out_records)} between windows` : "records · letters",
      null, totals.dead_letters > 0 && "warn"),
    tile("Restarts", count(totals.restarts), "", totals.last_restart ?? "since the process began", null, totals.restarts > 0 && "warn"),
    totals.undelivered_effects > 0 ? tile("Effects", count(totals.undelivered_effects), "", "not delivered yet") : null,
  ];
  return all.filter(Boolean);
}

function eventTime(status) {
  const held = holder(status);
  const time = held?.watermark ?? null;
  if (!held) return tile("Event time", "–", "", "no split holds it, or no step asks");
  if (time === null) return tile("Event time", "–", "", `${held.split} had no record yet`, null, "warn");
  if (isEnd(time)) return tile("Event time", "the end", "", "all input has ended");
  return tile("Event time", duration(Math.max(0, status.now - time)), "behind", `held by ${held.split}`);
}

const ago = (millis) => (millis < 1000 ? "now" : `${duration(millis)} ago`);

function tile(title, value, unit, about, drawing = null, kind = "") {
  return h("div", { class: `tile ${kind || ""}` }, h("dt", {}, title),
    h("dd", {}, h("b", {}, value), unit && h("small", {}, ` ${unit}`), h("span", { class: "about", title: about }, about), drawing));
}

/** Records a second, as a line over the views that are known. */
function spark(seen) {
  if (seen.length < 3) return null;
  const rates = seen.slice(1).map((now, place) => {
    const then = seen[place];
    return Math.max(0, now.totals.records - then.totals.records) / Math.max(1, now.now - then.now);
  });
  const most = Math.max(...rates, 1e-9);
  const points = rates.map((it, place) => `${((place * 100) / (rates.length - 1)).toFixed(1)},${(23 - (it / most) * 21).toFixed(1)}`);
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polygon", { points: `0,24 ${points.join(" ")} 100,24` }), svg("polyline", { points: points.join(" ") }));
}
