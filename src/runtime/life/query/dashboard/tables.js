// Positions, transactions, state and lives: the rows behind the numbers.

import { at, bytes, count, duration, h, isEnd, moment, nothing, put, say, several, table } from "./dom.js";
import { ask } from "./app.js";
import { acts, mayChange, putAround } from "./act.js";

/** The rows of a table that are shown. */
const ROWS_MAX = 60;
const number = true;

/** Open transactions: hanging ones first, which nobody will end. */
export function showTransactions(status) {
  const place = at("open-transactions");
  if (status.log_error) return put(place, h("p", { class: "wrong" }, `The log does not answer: ${status.log_error}`));
  if (status.transactions.length === 0) return put(place, nothing("None: readers wait for nobody."));
  const rows = status.transactions.slice(0, ROWS_MAX).map((open) => {
    const age = Math.max(0, status.now - open.since);
    const name = open.is_hanging ? `a hanging one of producer ${open.producer_id}` : open.transactional_id;
    const kind = open.is_hanging ? "hanging" : open.is_own ? "own" : "foreign";
    const left = open.timeout_millis === null ? null : open.timeout_millis - age;
    const facts = [
      open.is_hanging ? "nobody will end it" : open.is_own ? "the job's own, of the open cycle" : open.state,
      left !== null && !open.is_own && (left > 0 ? `aborted by its coordinator in ${duration(left)}` : "its timeout is over"),
      `producer ${open.producer_id}`,
    ].filter(Boolean).join(" · ");
    const waits = status.splits.filter((split) => open.partitions.includes(split.split) && split.high_watermark > split.last_stable_offset);
    const behind = waits.reduce((sum, split) => sum + split.high_watermark - split.last_stable_offset, 0);
    return h("li", { class: kind }, h("p", { class: "what" }, h("b", {}, name), h("span", { class: "age" }, `${open.is_hanging ? "silent" : "open"} for ${duration(age)}`)),
      h("p", {}, facts), h("p", {}, "In ", open.partitions.slice(0, 8).join(", "), open.partitions.length > 8 && ` and ${open.partitions.length - 8} more`,
        behind > 0 && `; ${several(behind, "offset")} behind it`),
      advice(open));
  });
  putAround(place, h("ul", { class: "transactions" }, rows), more(status.transactions));
}

/** A button that ends it where changes are allowed, else the command. */
function advice(open) {
  if (open.is_own) return null;
  const [partition] = open.partitions;
  if (!mayChange()) {
    const command = open.is_hanging ? `onceflow txn abort-hanging ${partition} ${open.producer_id}` : `onceflow txn abort ${open.transactional_id}`;
    return h("p", { class: "advice" }, "To end it: ", h("code", {}, command));
  }
  const cut = partition.lastIndexOf("-");
  const hanging = { topic: partition.slice(0, cut), partition: Number(partition.slice(cut + 1)), producer_id: open.producer_id };
  const name = open.is_hanging ? `the hanging transaction of producer ${open.producer_id} in ${partition}` : `the transaction of ${open.transactional_id}`;
  return acts("Abort it", {
    key: name,
    question: `Abort ${name}?`,
    facts: [open.is_hanging ? "What it wrote there is never seen. Readers go on behind it."
      : "What it wrote is never seen, in any partition, and its producer is fenced. Readers go on behind it."],
    verb: "Abort",
    path: "transactions/abort",
    body: open.is_hanging ? hanging : { transactional_id: open.transactional_id },
    place: () => at("transactions-told"),
    told: () => `${name[0].toUpperCase()}${name.slice(1)} was aborted.`,
  });
}

const more = (all) => (all.length > ROWS_MAX ? h("p", { class: "rest" }, `and ${count(all.length - ROWS_MAX)} more`) : null);

/** Splits, those that are furthest behind first. */
export function showSplits(status) {
  if (status.splits.length === 0) return put(at("splits"), nothing("No split is read now."));
  const sorted = [...status.splits].sort((a, b) => (b.lag ?? -1) - (a.lag ?? -1) || a.split.localeCompare(b.split, "en", { numeric: true }));
  const most = Math.max(1, ...sorted.map((split) => split.lag ?? 0));
  const rows = sorted.slice(0, ROWS_MAX).map((split) => {
    const inFlight = split.high_watermark === null || split.last_stable_offset === null ? null : split.high_watermark - split.last_stable_offset;
    const lag = h("span", { class: "lag" }, h("i", { css: { width: `${((split.lag ?? 0) * 100) / most}%` } }), h("span", {}, count(split.lag)));
    const state = [split.state, split.holds_time && "holds time", split.held_by && `held by ${split.held_by}`].filter(Boolean).join(", ");
    return Object.assign([split.split, lag, count(split.position), count(split.last_stable_offset), count(inFlight), split.source, state],
      { kind: split.held_by && !isOwn(status, split.held_by) ? "held" : "" });
  });
  put(at("splits"), table([{ title: "split" }, { title: "lag", number }, { title: "position", number }, { title: "last stable", number },
    { title: "in flight", number }, { title: "source" }, { title: "state" }], rows, sorted.length - ROWS_MAX));
}

const isOwn = (status, holder) => status.transactions.some((open) => open.is_own && holder === `the transaction of ${open.transactional_id}`);

let latest = null;

export function showStores(status) {
  latest = status;
  if (status.stores.length === 0) return put(at("stores"), nothing("No store has a size yet."));
  const rows = [...status.stores].sort((a, b) => b.memory_bytes + b.disk_bytes - a.memory_bytes - a.disk_bytes).slice(0, ROWS_MAX)
    .map((store) => [store.name, count(store.rows_in_memory), bytes(store.memory_bytes), bytes(store.dirty_bytes), count(store.rows_on_disk),
      bytes(store.disk_bytes), bytes(store.tail_bytes), hits(store)]);
  put(at("stores"), table([{ title: "store" }, { title: "rows", number }, { title: "memory", number }, { title: "not flushed", number },
    { title: "rows on disk", number }, { title: "disk", number }, { title: "replayed by a restart", number }, { title: "read from memory", number }], rows,
  status.stores.length - ROWS_MAX));
}

/** The part of reads that memory answered, of a store that is larger than its memory. */
function hits(store) {
  const all = store.hits + store.misses;
  return all === 0 ? "all" : `${((store.hits * 100) / all).toFixed(store.misses > 0 && store.hits * 100 > all * 99 ? 1 : 0)} %`;
}

let known = [];

/** The stores that may be asked, with their types. */
export function knowStores(stores) {
  known = stores;
  at("lookup").hidden = stores.length === 0;
  put(at("store"), stores.map((store) => h("option", { value: store.name }, store.name)));
  sayTypes();
}

/** Of which type the key is, and what is found. */
function sayTypes() {
  const store = known.find((it) => it.name === at("store").value);
  if (store) say(at("key-type"), `Key, ${store.key.replace("with time: ", "")}`);
}

at("store").addEventListener("change", sayTypes);

at("lookup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const store = known.find((it) => it.name === at("store").value);
  if (!store) return;
  const found = at("found");
  put(found, "Asking…");
  const key = `key=${encodeURIComponent(at("key").value)}`;
  try {
    const answer = store.has_windows ? await askWindows(store.name, key) : await ask(`stores/${encodeURIComponent(store.name)}?${key}`);
    const value = "value" in answer ? answer.value : answer.windows ?? answer.rows;
    const isNothing = value === null || value === undefined || value.length === 0;
    put(found, isNothing ? h("b", {}, store.has_windows ? "no open window of this key" : "no such key") : h("code", {}, JSON.stringify(value, null, 1)),
      h("small", {}, ` as of epoch ${answer.epoch}`));
  } catch (error) {
    put(found, h("span", { class: "wrong" }, error.message));
  }
});

/** The windows of a key around the job's event time. An answer holds a number of windows at most: where they are short, it is asked for less. */
async function askWindows(store, key) {
  const held = latest?.splits.find((split) => split.holds_time)?.watermark;
  const middle = held !== null && held !== undefined && !isEnd(held) ? held : Date.now();
  const hour = 3_600_000;
  for (const around of [8760 * hour, 720 * hour, 24 * hour, hour, hour / 60, hour / 3600]) {
    try {
      return await ask(`windows/${encodeURIComponent(store)}?${key}&from=${middle - around}&to=${middle + around}`);
    } catch (error) {
      if (!error.message.includes("smaller")) throw error;
    }
  }
  throw new Error("the windows are too short to be asked for here: ask for a range with /windows");
}

/** The starts of the job, the newest first. */
export function showLives(status) {
  if (status.lives.length === 0) return put(at("starts"), nothing("The job opens its state; it has not run yet."));
  const rows = [...status.lives].reverse().slice(0, ROWS_MAX).map((life, place) => {
    const ended = life.ended_by ?? (place === 0 ? (status.phase === "ended" ? "ended" : "runs") : "ended");
    const first = life.first_commit === null ? "none yet" : `after ${duration(life.first_commit - life.began)}`;
    const before = life.recovery;
    const opened = duration((before.fence_micros + before.open_micros + before.positions_micros) / 1000);
    const replayed = `${count(before.replayed_records)} in ${duration(before.replay_micros / 1000)}`;
    return Object.assign([moment(life.began, status.now), opened, replayed, first, count(life.commits), ended], { kind: life.ended_by ? "failed" : "" });
  });
  put(at("starts"), table([{ title: "began (UTC)" }, { title: "opened in" }, { title: "replayed" }, { title: "first commit" }, { title: "commits", number }, { title: "ended by" }], rows, status.lives.length - ROWS_MAX));
}
