// Records: a page of a topic as it lies in the log, and what came of a record.

import { at, count, h, moment, nothing, put, several, table } from "./dom.js";
import { ask } from "./app.js";
import { shown } from "./bytes.js";

const LIMIT = 20;
const number = true;

/** Fills the choice of topics; `job` is who follows unless somebody else is named. */
export async function knowTopics(job) {
  if (at("follower").value === "") at("follower").value = job ?? "";
  const chosen = at("topic").value;
  try {
    const { topics } = await ask("topics");
    topics.sort((a, b) => Number(a.is_internal) - Number(b.is_internal) || a.topic.localeCompare(b.topic, "en", { numeric: true }));
    put(at("topic"), topics.map((it) => h("option", { value: it.topic }, `${it.topic} (${several(it.partitions, "partition")})`)));
    if (topics.some((it) => it.topic === chosen)) at("topic").value = chosen;
  } catch (error) {
    put(at("records-told"), h("p", { class: "wrong" }, error.message));
  }
}

/** The parameter that says where a page begins; an error where the text says nothing. */
function fromOf(text) {
  const place = text.trim();
  if (place === "") return `from=-${LIMIT}`;
  if (place === "beginning" || /^-?\d+$/.test(place)) return `from=${place}`;
  const time = /^\d{4}-\d\d-\d\d/.test(place) ? Date.parse(/(Z|[+-]\d\d:\d\d)$/.test(place) || !place.includes("T") ? place : `${place}Z`) : Number.NaN;
  if (Number.isNaN(time)) throw new Error(`${place} is no place: give an offset, -20 for the last 20, beginning, or a time such as 2026-11-28T07:00 (UTC)`);
  return `time=${time}`;
}

at("browse").addEventListener("submit", (event) => {
  event.preventDefault();
  browse(at("from").value);
});

async function browse(from) {
  const [topic, partition] = [at("topic").value, at("partition").value];
  put(at("followed"));
  try {
    put(at("records-told"), nothing("Reading…"));
    const page = await ask(`records/${encodeURIComponent(topic)}?partition=${partition}&${fromOf(from)}&limit=${LIMIT}`);
    put(at("records-told"), about(page));
    put(at("found-records"), h("ul", { class: "letters" }, page.records.map((row) => item(page, row))));
    knowTopics();
  } catch (error) {
    put(at("records-told"), h("p", { class: "wrong" }, error.message));
    put(at("found-records"));
  }
}

/** The marks of the partition, and the ways to other pages. */
function about(page) {
  const facts = `${page.topic}-${page.partition} has offsets ${count(page.log_start_offset)} to ${count(page.high_watermark)}` +
    (page.last_stable_offset < page.high_watermark ? `; readers wait at ${count(page.last_stable_offset)}` : "");
  const go = (label, from) => h("button", { type: "button", on: { click: () => browse(String(from)) } }, label);
  const before = Math.max(page.log_start_offset, page.from - LIMIT);
  return h("div", { class: "letters-head" }, h("p", {}, page.records.length ? `${facts}.` : `${facts}: nothing is there from ${count(page.from)} on.`),
    h("div", { class: "row" }, page.from > page.log_start_offset && go("Older", before), page.next !== null && go("Newer", page.next)));
}

const STATES = { none: "without a transaction", committed: "committed", aborted: "aborted: nobody is shown it", open: "of an open transaction", ended: "of a transaction that has ended; its marker is behind this page" };
const MARKERS = { commit: "marker: commit", abort: "marker: abort", other: "control record" };

function item(page, row) {
  const isRecord = row.kind === "record";
  const facts = [row.time === null ? null : moment(row.time), row.producer_id === null ? null : `producer ${row.producer_id}, epoch ${row.producer_epoch}`];
  const headers = (row.headers ?? []).map(([name, value]) => `${name}: ${value === null ? "null" : value.text ?? value.hex}`);
  return h("li", { class: `letter record ${row.kind === "marker" ? "marker" : row.transaction}`, "data-offset": row.offset },
    h("p", { class: "what" }, h("b", {}, String(row.offset)), h("span", { class: "kind" }, isRecord ? "record" : row.kind === "marker" ? MARKERS[row.marker] : "unreadable"),
      h("span", { class: "state" }, row.kind === "marker" ? "the end of a transaction" : STATES[row.transaction])),
    row.error && h("p", { class: "reason" }, row.error),
    h("p", { class: "facts" }, facts.filter(Boolean).join(" · ")),
    headers.length > 0 && h("p", { class: "facts" }, `headers ${headers.join(", ")}`),
    isRecord && [shown("key", row.key), shown("value", row.value)],
    isRecord && page && h("button", { type: "button", class: "acts", on: { click: (event) => follow(event.currentTarget, page, row) } }, "Follow it"));
}

async function follow(button, page, row) {
  const job = at("follower").value.trim();
  const place = at("followed");
  button.disabled = true;
  put(place, nothing("Looking for its transaction…"));
  try {
    if (job === "") throw new Error("say which job or group consumed it");
    put(place, came(await ask(`records/${encodeURIComponent(page.topic)}/follow?partition=${page.partition}&offset=${row.offset}&job=${encodeURIComponent(job)}`)));
  } catch (error) {
    put(place, h("p", { class: "wrong" }, error.message));
  }
  button.disabled = false;
  place.scrollIntoView({ block: "center" });
  place.focus({ preventScroll: true });
}

/** All that came of a record. */
function came(told) {
  const { transaction } = told;
  const name = transaction && (transaction.transactional_id ?? `producer ${transaction.producer_id}`);
  const where = `${told.topic}-${told.partition} at offset ${count(told.offset)}`;
  const head = `${told.job} consumed ${where} ${transaction ? `in a transaction of ${name} (epoch ${transaction.producer_epoch})` : "without a transaction"}, committed ${moment(told.committed)}.`;
  const positions = told.positions.map((it) => [`${it.topic}-${it.partition}`, count(it.from), count(it.to)]);
  return h("div", { class: "came" }, h("h3", {}, "What came of it"), h("p", {}, head), told.untold && h("p", { class: "wrong" }, told.untold),
    transaction && told.wrote.length === 0 && nothing("The transaction wrote nothing but positions."),
    told.wrote.map(wrote),
    h("h4", {}, "Positions committed with it"),
    h("div", { class: "scroll" }, table([{ title: "partition" }, { title: "from", number }, { title: "to", number }], positions)),
    told.not_searched.map((it) => h("p", { class: "wrong" }, `${it.topic}-${it.partition} could not be searched: ${it.why}`)));
}

const ROLES = { output: () => "Output", state: (of) => `State changes of ${of}`, shuffle: (of) => `Sent on to ${of}`, positions: () => "The job's own notes" };

function wrote(part) {
  const span = part.count === 0 ? "nothing is left of it" : `${several(part.count, "record")}, offsets ${count(part.first_offset)} to ${count(part.last_offset)}`;
  const more = part.count - part.records.length;
  return h("details", { class: "part" },
    h("summary", {}, h("b", {}, ROLES[part.role](part.of)), ` ${part.topic}-${part.partition}: ${span}`),
    !part.is_whole && h("p", { class: "facts" }, "Not all of it was found: the rest was compacted or deleted, or lies too far back."),
    h("ul", { class: "letters" }, part.records.map((row) => item(null, row))),
    more > 0 && h("p", { class: "rest" }, `and ${count(more)} more`));
}
