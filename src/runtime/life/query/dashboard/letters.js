// Letters: dead and late records by reason, each decoded beside raw, and the way back into the job.

import { at, count, h, moment, nothing, put, several, table } from "./dom.js";
import { ask } from "./app.js";
import { acts, mayChange } from "./act.js";
import { shown } from "./bytes.js";

const LIMIT = 50;
const number = true;

let job = "";
let now = 0;
/** The letters that were looked at last. */
let looked = null;

export function showLetters(status) {
  job = status.job;
  now = status.now;
  const { late_by_reason: late, dead_by_reason: dead } = status.totals;
  const rows = [...Object.entries(dead).map(([reason, letters]) => ["dead", reason, letters]),
    ...Object.entries(late).map(([reason, letters]) => ["late", reason, letters])]
    .filter(([, , letters]) => letters > 0).sort((a, b) => b[2] - a[2])
    .map(([kind, reason, letters]) => [kind, count(letters), reason]);
  const told = rows.length ? table([{ title: "kind" }, { title: "letters", number }, { title: "reason" }], rows)
    : [nothing("None since the process began.")];
  put(at("reasons"), told);
}

at("look-letters").addEventListener("click", async () => {
  const found = at("found-letters");
  at("look-letters").disabled = true;
  put(found, nothing("Looking into the topics of the log…"));
  try {
    const { topics } = await ask("letters");
    const choice = at("letters-topic");
    at("letters-choice").hidden = topics.length === 0;
    put(choice, topics.map((topic) => h("option", { value: topic }, topic)));
    if (topics.length === 0) put(found, nothing("No topic of the log has letters of this job."));
    else await look();
  } catch (error) {
    put(found, h("p", { class: "wrong" }, error.message));
  }
  at("look-letters").disabled = false;
});
at("letters-topic").addEventListener("change", () => look());

/** Fetches the newest letters of the topic that is chosen. */
async function look() {
  const topic = at("letters-topic").value;
  const found = at("found-letters");
  try {
    looked = await ask(`letters/${encodeURIComponent(topic)}?limit=${LIMIT}`);
    put(found, looked.letters.length ? list(looked) : nothing(`${topic} has none.`));
  } catch (error) {
    put(found, h("p", { class: "wrong" }, error.message));
  }
}

function list({ topic, letters }) {
  const waiting = letters.filter((it) => it.state === "waiting" && !it.is_of_another).length;
  const head = h("div", { class: "letters-head" },
    h("p", {}, `The newest ${several(letters.length, "letter")} of ${topic}${letters.length === LIMIT ? "; there may be older ones" : ""}.`),
    waiting > 0 && wayBack(topic, "Replay all that wait", { all: true }, `all letters of ${topic} that were not replayed`, `--all`));
  return [head, h("ul", { class: "letters" }, letters.map((letter) => item(topic, letter)))];
}

const STATES = { waiting: "not replayed", asked: "asked for, waits for the job", replayed: "replayed" };

function item(topic, letter) {
  const where = letter.source === null ? null : `${letter.source}${letter.source_offset === null ? "" : ` at offset ${letter.source_offset}`}`;
  const facts = [
    where && `from ${where}`,
    letter.time === null ? null : `record of ${moment(letter.time, now)}`,
    letter.kind === "dead" && `put aside ${moment(letter.written, now)}`,
    letter.kind === "dead" && several(letter.attempts, "attempt"),
    letter.is_of_another && `of the job ${letter.job}`,
    letter.idempotency_key && `idempotency key ${letter.idempotency_key}`,
  ].filter(Boolean).join(" · ");
  const headers = letter.headers.map(([name, value]) => `${name}: ${value === null ? "null" : value.text ?? value.hex}`);
  const isFree = letter.state === "waiting" && !letter.is_of_another;
  const choice = { partition: letter.partition, offset: letter.offset };
  return h("li", { class: `letter ${letter.kind}` },
    h("p", { class: "what" }, h("b", {}, `${letter.partition}:${letter.offset}`), h("span", { class: "kind" }, letter.kind),
      h("span", { class: "state" }, STATES[letter.state])),
    h("p", { class: "reason" }, letter.reason),
    facts && h("p", { class: "facts" }, facts),
    headers.length > 0 && h("p", { class: "facts" }, `headers ${headers.join(", ")}`),
    shown("key", letter.key), shown("value", letter.value),
    isFree && wayBack(topic, "Replay it", choice, `the letter ${letter.partition}:${letter.offset} of ${topic}`,
      `--partition ${letter.partition} --offsets ${letter.offset}`));
}

/** A button where changes are allowed, else the command. */
function wayBack(topic, label, choice, what, options) {
  if (!mayChange()) return h("p", { class: "advice" }, "To replay: ", h("code", {}, `onceflow letters replay ${topic} --job ${job} ${options}`));
  const late = looked.letters.some((it) => it.kind === "late");
  return acts(label, {
    key: what,
    question: `Replay ${what}?`,
    facts: ["Each enters the job once more, in its transaction, where it came from. Mend the cause first: one that fails again becomes a new letter.",
      late && "A late record keeps its own time: it is late again, unless its step has a longer grace now."].filter(Boolean),
    verb: "Replay",
    path: `letters/${encodeURIComponent(topic)}/replay`,
    body: choice,
    place: () => at("letters-told"),
    told: (done) => `${several(done.asked, "letter")} ${done.asked === 1 ? "is" : "are"} given back to the job` +
      `${done.asked_before ? `; ${done.asked_before} were before` : ""}${done.of_others ? `; ${done.of_others} are of other jobs` : ""}.`,
    after: look,
  });
}
