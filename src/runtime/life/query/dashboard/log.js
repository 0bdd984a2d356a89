// A log without a job: its topics with their partitions, its groups with their lag, and who keeps readers waiting.

import { at, bytes, count, duration, h, nothing, put, say, several, table } from "./dom.js";
import { showTransactions } from "./tables.js";

/** The rows of a table that are shown. */
const ROWS_MAX = 200;
const number = true;

export function showLog(status) {
  const partitions = status.topics.flatMap((topic) => topic.partitions.map((it) => ({ ...it, topic: topic.topic })));
  say(at("log-sentence"), sentence(status, partitions));
  showTopics(status);
  showGroups(status);
  const splits = partitions.map((it) => ({ split: `${it.topic}-${it.partition}`, high_watermark: it.high_watermark, last_stable_offset: it.last_stable_offset }));
  showTransactions({ ...status, splits });
}

/** How the log is, and the worst that is seen of it. */
function sentence(status, partitions) {
  if (status.log_error) return `The log does not answer: ${status.log_error}`;
  const own = status.topics.filter((topic) => !topic.is_internal);
  const size = status.topics.reduce((sum, topic) => sum + topic.size_bytes, 0);
  const offline = partitions.filter((it) => it.offline);
  const hanging = status.transactions.filter((open) => open.is_hanging);
  const [oldest] = status.transactions;
  const worst = offline.length > 0 ? `; ${several(offline.length, "partition")} offline: ${offline[0].offline}`
    : hanging.length > 0 ? `; ${several(hanging.length, "transaction")} that nobody will end ${hanging.length === 1 ? "keeps" : "keep"} readers waiting`
    : oldest && status.now - oldest.since > 10_000 ? `; readers wait for the transaction of ${oldest.transactional_id}, open for ${duration(status.now - oldest.since)}` : "";
  return `${several(own.length + status.topics_left_out, "topic")}, ${several(status.groups.length + status.groups_left_out, "group")}, ${bytes(size)}${worst}`;
}

function showTopics(status) {
  const topics = [...status.topics].sort((a, b) => Number(a.is_internal) - Number(b.is_internal) || a.topic.localeCompare(b.topic, "en", { numeric: true }));
  const rows = topics.flatMap((topic) => topic.partitions.map((it) => Object.assign([
    `${topic.topic}-${it.partition}`, count(it.log_start_offset), count(it.last_stable_offset), count(it.high_watermark), bytes(it.size_bytes),
    it.offline ? `offline: ${it.offline}` : it.last_stable_offset < it.high_watermark ? `${several(it.high_watermark - it.last_stable_offset, "offset")} not decided` : topic.is_internal ? "internal" : "",
  ], { kind: it.offline ? "failed" : it.last_stable_offset < it.high_watermark ? "held" : "" })));
  const more = Math.max(0, rows.length - ROWS_MAX);
  put(at("topic-rows"), rows.length === 0 ? nothing("There is no topic.") : table([{ title: "partition" }, { title: "start", number }, { title: "last stable", number },
    { title: "high watermark", number }, { title: "size", number }, { title: "state" }], rows.slice(0, ROWS_MAX), more),
  status.topics_left_out > 0 && h("p", { class: "rest" }, `and ${several(status.topics_left_out, "more topic")}: onceflow topic list has them`));
}

function showGroups(status) {
  const groups = [...status.groups].sort((a, b) => (b.lag ?? -1) - (a.lag ?? -1) || a.group.localeCompare(b.group));
  const rows = groups.flatMap((group) => [
    Object.assign([group.group, count(group.lag), "", "", `${group.state}, ${group.type}, ${several(group.members, "member")}`], { kind: "whole" }),
    ...group.positions.map((it) => [`${it.topic}-${it.partition}`, count(it.lag), count(it.position), count(it.end), it.is_pending ? "another position is pending in an open transaction" : ""]),
  ]);
  const more = Math.max(0, rows.length - ROWS_MAX);
  put(at("group-rows"), rows.length === 0 ? nothing("No group has members or positions.") : table([{ title: "group, partition" }, { title: "lag", number },
    { title: "position", number }, { title: "last stable", number }, { title: "state" }], rows.slice(0, ROWS_MAX), more),
  status.groups_left_out > 0 && h("p", { class: "rest" }, `and ${several(status.groups_left_out, "more group")}: onceflow group list has them`));
}
