// The last 200 commits as stacked phases: which phase takes the time, and why a cycle closed.

import { at, count, duration, h, moment, nothing, put, say, svg, table } from "./dom.js";
import { commitMillis, quantile } from "./job.js";

const PHASES = [
  ["drain", "what is in flight runs out"],
  ["flush", "changelogs are written, sinks prepared"],
  ["positions", "positions join the transaction"],
  ["sync", "data becomes durable"],
  ["decide", "the decision becomes durable"],
  ["markers", "markers are written, the end is answered"],
  ["apply", "workers, readers and the store are told"],
];
const SHOWN = 200;
const HEIGHT = 150;
const STEP = 6;

let shown = [];
/** The commit that is selected, by when it was committed; `null` is the newest. */
let selected = null;

export function showCommits(status) {
  shown = status.cycles.slice(-SHOWN);
  const chart = at("cycles");
  if (shown.length === 0) {
    put(chart, nothing("No cycle is committed yet."));
    say(at("cycle"), "");
    put(at("phases"));
    return;
  }
  chart.setAttribute("aria-valuemax", shown.length);
  const millis = shown.map(commitMillis);
  const span = status.cycles.at(-1).committed_at - shown[0].committed_at;
  say(at("commits-about"), `The last ${shown.length}, over ${duration(span)}. Hover or use the arrow keys.`);
  draw(millis);
  tell(status.now);
  showPhases(millis);
}

/** The greatest round number that bars are measured by: outliers are cut, and marked. */
function scaleOf(millis) {
  const most = Math.max(quantile(millis, 0.98) * 1.25, quantile(millis, 0.5) * 2, 0.5);
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 10].map((it) => it * power).find((it) => it >= most);
}

function draw(millis) {
  const scale = scaleOf(millis);
  const y = (value) => HEIGHT - (Math.min(value, scale) * HEIGHT) / scale;
  const width = SHOWN * STEP;
  const first = SHOWN - shown.length;
  const at_ = place();
  const bars = shown.map((cycle, place) => {
    const x = (first + place) * STEP;
    let bottom = 0;
    const parts = PHASES.map(([phase]) => {
      const value = cycle[`${phase}_micros`] / 1000;
      const [low, high] = [y(bottom), y(bottom + value)];
      bottom += value;
      return low - high > 0.2 ? svg("rect", { class: `p-${phase}`, x, y: high, width: STEP - 1, height: low - high }) : null;
    });
    const isCut = millis[place] > scale;
    return [parts, isCut ? svg("path", { class: "cut", d: `M${x} 0 h${STEP - 1} l-${(STEP - 1) / 2} -5 z` }) : null,
      place === at_ ? svg("rect", { class: "chosen", x: x - 1, y: 0, width: STEP + 1, height: HEIGHT }) : null];
  });
  const lines = [0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: width, y1: y(scale * part), y2: y(scale * part) }));
  const chart = svg("svg", { viewBox: `0 -8 ${width} ${HEIGHT + 9}`, preserveAspectRatio: "none", "aria-hidden": "true" }, lines,
    svg("line", { class: "base", x1: 0, x2: width, y1: HEIGHT, y2: HEIGHT }), bars.flat(2));
  const marks = [1, 0.5].map((part) => h("span", { class: "mark", css: { top: `${5.4 + (1 - part) * 94}%` } }, duration(scale * part)));
  put(at("cycles"), chart, marks);
}

/** Where the selected commit stands. */
function place() {
  const found = selected === null ? -1 : shown.findIndex((cycle) => cycle.committed_at === selected);
  return found < 0 ? shown.length - 1 : found;
}

function tell(now) {
  const chosen = place();
  const cycle = shown[chosen];
  const phases = PHASES.map(([phase]) => `${phase} ${duration(cycle[`${phase}_micros`] / 1000)}`).join(", ");
  const text = `${selected === null ? "Newest" : moment(cycle.committed_at, now)}: ${count(cycle.records)} records, closed by ` +
    `${cycle.reason.replaceAll("_", " ")} after ${duration(cycle.open_micros / 1000)}; committed in ${duration(commitMillis(cycle))} (${phases})`;
  say(at("cycle"), text);
  const chart = at("cycles");
  chart.setAttribute("aria-valuenow", chosen + 1);
  chart.setAttribute("aria-valuetext", text);
}

function showPhases(millis) {
  const row = (name, about, values) => [name, about, ...[0.5, 0.99, 1].map((part) => duration(quantile(values, part)))];
  // A log on a network gives one answer to the end of a transaction: its parts are not told apart.
  const isOneAnswer = shown.every((cycle) => cycle.sync_micros === 0 && cycle.markers_micros === 0);
  const parts = PHASES.filter(([phase]) => !isOneAnswer || !["sync", "markers"].includes(phase));
  const rows = parts.map(([phase, about]) => {
    const name = h("span", { class: "legend" }, h("i", { class: `p-${phase}` }), phase);
    const told = isOneAnswer && phase === "decide" ? "sync, decision and markers: the log gives one answer" : about;
    return row(name, told, shown.map((cycle) => cycle[`${phase}_micros`] / 1000));
  });
  rows.push(Object.assign(row("whole", "all phases", millis), { kind: "whole" }));
  const number = true;
  put(at("phases"), table([{ title: "phase" }, { title: "in it" }, { title: "half below", number }, { title: "99 % below", number }, { title: "slowest", number }], rows));
}

function select(chosen) {
  const bounded = Math.max(0, Math.min(shown.length - 1, chosen));
  if (!shown[bounded]) return;
  selected = bounded === shown.length - 1 ? null : shown[bounded].committed_at;
  draw(shown.map(commitMillis));
  tell(undefined);
}

const chart = at("cycles");
chart.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10, Home: -SHOWN, End: SHOWN }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  select(place() + by);
});
chart.addEventListener("pointermove", (event) => {
  const { left, width } = chart.getBoundingClientRect();
  select(Math.floor(((event.clientX - left) * SHOWN) / width) - (SHOWN - shown.length));
});
chart.addEventListener("pointerleave", () => select(shown.length - 1));
