// The views that come from the server, and who shows them: one view a second while the page is visible.

import { at, duration, h, put, say } from "./dom.js";
import { showJob } from "./job.js";
import { showGraph } from "./graph.js";
import { showCommits } from "./commits.js";
import { showTime, timedStores } from "./time.js";
import { knowStores, showLives, showSplits, showStores, showTransactions } from "./tables.js";
import { showLetters } from "./letters.js";
import { showLog } from "./log.js";
import { knowTopics } from "./records.js";
import { allowChanges } from "./act.js";

/** Without a view for so long the connection counts as lost. */
const SILENCE_MILLIS = 4000;
/** The pause before it is asked again. */
const RETRY_MILLIS = 1000;
const TOKEN = "onceflow-token";

/** The last views, for what changes in between: the newest last. */
const seen = [];
const SEEN_MAX = 120;

let asking = null;
let lastHeard = 0;
/** Whether nothing came since the last failure, and its words. */
let hasFailed = false;
let why = "";

const headers = () => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
};

/** Asks the server; the answer's JSON, or an error that says why not. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json", ...headers() }, cache: "no-store" });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error ?? `the server answered ${answer.status}`);
  return told;
}

/** Asks for a change. */
export async function send(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers() }, body: JSON.stringify(body), cache: "no-store" });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error ?? `the server answered ${answer.status}`);
  return told;
}

/** Reads views until the connection ends. */
async function listen(signal) {
  const answer = await fetch("dashboard/events", { headers: headers(), signal, cache: "no-store" });
  if (answer.status === 401) return askForToken();
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    const last = events.filter((event) => event.startsWith("data: ")).pop();
    if (last !== undefined) show(JSON.parse(last.slice(6)));
  }
}

async function watch() {
  if (asking || document.hidden || !at("door").hidden) return;
  asking = new AbortController();
  let pause = RETRY_MILLIS;
  try {
    // The server ends each answer some time: that is no failure, unless it has nothing to say.
    const before = lastHeard;
    await listen(asking.signal);
    if (lastHeard > before) pause = 0;
  } catch (error) {
    hasFailed = !document.hidden;
    why = error.name === "TypeError" ? "the process does not answer" : error.message;
  }
  asking = null;
  tellLiveness();
  if (!document.hidden) setTimeout(watch, pause);
}

function askForToken() {
  const tried = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  at("door").hidden = false;
  at("main").hidden = true;
  say(at("wrong"), tried ? "That is not the token." : "");
  at("token").focus();
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = at("token").value.trim();
  // A text that no header can carry is no token.
  if (!/^[\x21-\x7e]+( [\x21-\x7e]+)*$/.test(token)) return say(at("wrong"), "A token has ASCII letters, digits and signs.");
  sessionStorage.setItem(TOKEN, token);
  at("token").value = "";
  at("door").hidden = true;
  watch();
});

function show(status) {
  lastHeard = performance.now();
  hasFailed = false;
  if (status.kind === "log") {
    document.body.dataset.kind = "log";
    if (at("main").hidden) arrive();
    document.title = `${status.log} · log`;
    say(at("name"), status.log);
    say(at("version"), `Onceflow ${status.version}`);
    showLog(status);
    return tellLiveness();
  }
  if (seen.length > 0 && (seen.at(-1).job !== status.job || seen.at(-1).now > status.now)) seen.length = 0;
  seen.push(status);
  if (seen.length > SEEN_MAX) seen.shift();
  if (at("main").hidden) arrive();
  document.title = `${status.job} · ${status.phase}`;
  say(at("name"), status.job);
  say(at("version"), `Onceflow ${status.version}`);
  showJob(seen);
  showGraph(seen);
  showCommits(status);
  showTime(status);
  showTransactions(status);
  showSplits(status);
  showStores(status);
  showLetters(status);
  showLives(status);
  tellLiveness();
}

/** The first view came. */
function arrive() {
  at("main").hidden = false;
  const wanted = location.hash && document.querySelector(`main > ${CSS.escape(location.hash).replace("\\#", "#")}`);
  if (wanted) wanted.scrollIntoView();
  ask("./").then((about) => {
    allowChanges(about.may_change);
    if (!about.stores) return;
    knowStores(about.stores);
    timedStores(about.stores);
  }, () => {});
  knowTopics(seen.at(-1)?.job);
}

/** Says whether what is shown is the present. */
function tellLiveness() {
  const silence = performance.now() - lastHeard;
  const isLost = lastHeard > 0 && (silence > SILENCE_MILLIS || hasFailed);
  const isLive = lastHeard > 0 && !isLost;
  at("live").dataset.live = isLive ? "live" : lastHeard > 0 ? "lost" : "waiting";
  say(at("live").lastElementChild, isLive ? "live" : lastHeard > 0 ? "connection lost" : hasFailed ? "no answer" : "connecting");
  document.body.classList.toggle("lost", isLost);
  const lost = at("lost");
  const firstFailed = lastHeard === 0 && hasFailed && at("door").hidden;
  if (lost.hidden !== !(isLost || firstFailed)) lost.hidden = !(isLost || firstFailed);
  if (isLost) {
    const age = h("span", {}, duration(Math.max(1000, Math.floor(silence / 1000) * 1000)));
    const reason = hasFailed ? why : "no view came";
    if (!lost.firstChild || lost.dataset.why !== reason) {
      lost.dataset.why = reason;
      put(lost, h("strong", {}, "Connection lost. "), `What you see is the past: ${reason}. Last view `, age, " ago; trying again.");
    } else {
      const shown = lost.querySelector("span");
      if (shown) say(shown, age.textContent);
    }
  } else if (firstFailed) {
    put(lost, h("strong", {}, "No answer. "), `${why}; trying again.`);
  } else {
    lost.dataset.why = "";
    put(lost);
  }
}

setInterval(tellLiveness, 500);
document.addEventListener("visibilitychange", () => {
  // Whoever does not look costs the job nothing.
  if (document.hidden) asking?.abort();
  else setTimeout(watch, 0);
});
document.addEventListener("keydown", (event) => {
  if (at("sure").open || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const links = /^[0-9]$/.test(event.key) ? [...document.querySelectorAll(`nav a[aria-keyshortcuts="${event.key}"]`)] : [];
  const link = links.find((it) => it.offsetParent !== null);
  if (!link) return;
  link.click();
  document.querySelector(link.getAttribute("href")).focus({ preventScroll: true });
});
watch();
