// Looks at the dashboard in a browser without a screen: node look.mjs SCENARIO URL [STEP'S WORDS…]
//
// It says "@NAME" on standard output when a step of the test's is due, and goes on with the next line of standard input. It ends
// with 0 if all it was told to find was there, within the time that a test may wait.

import assert from "node:assert/strict";
import readline from "node:readline";
import { chromium } from "playwright-core";

const [scenario, url, ...words] = process.argv.slice(2);
const PATIENCE = 60_000;
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const program = process.env.ONCEFLOW_BROWSER ?? "/usr/bin/chromium";
// The system's sandbox is not to be had in every container; what is opened is our own page.
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(PATIENCE);
await page.addInitScript(() => { window.hurt = false; });

const errors = [];
const foreign = [];
const own = new URL(url).origin;
/** What the browser itself says of a server that is gone, or of a token that is asked for. */
const expected = /Failed to load resource: (net::ERR_|the server responded with a status of (401|400|404|503))/;
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) errors.push(message.text());
});
page.on("pageerror", (error) => errors.push(String(error)));
context.on("request", (request) => {
  if (new URL(request.url()).origin !== own) foreign.push(request.url());
});

/** Tells the test, and waits for its answer. */
async function step(name) {
  process.stdout.write(`@${name}\n`);
  const { value, done } = await input.next();
  assert(!done, `the test ended at ${name}`);
  return value;
}

const text = (selector) => page.locator(selector).innerText();
/** Waits until something is true in the page. Playwright's own way evaluates strings there, which the page's policy refuses. */
async function until(what, is, argument) {
  const end = Date.now() + PATIENCE;
  while (!(await page.evaluate(is, argument))) {
    assert(Date.now() < end, `waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const live = () => until("the page is live", () => document.querySelector("#live").dataset.live === "live");
const says = (selector, part) =>
  until(`${selector} says ${part}`, ([where, wanted]) => document.querySelector(where)?.innerText.includes(wanted), [selector, part]);
const status = () => page.evaluate(async () => (await fetch("status")).json());

/** The picture of a moment, for people, where a folder is named. */
async function shoot(name, options = {}) {
  if (!process.env.ONCEFLOW_SHOTS) return;
  await page.evaluate(() => window.scrollTo({ top: 0, behavior: "instant" }));
  await page.screenshot({ path: `${process.env.ONCEFLOW_SHOTS}/${name}.png`, fullPage: true, ...options });
}

async function noScroll(width) {
  await page.setViewportSize({ width, height: 800 });
  await page.waitForTimeout(1500);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  const guilty = await page.evaluate((most) => [...document.querySelectorAll("body *")]
    .filter((it) => it.getBoundingClientRect().right > most + 0.5 && !it.closest(".scroll, nav, svg"))
    .map((it) => `${it.tagName}#${it.id}.${it.className}`).slice(0, 5), width);
  assert(wide <= width, `at ${width} px the page is ${wide} px wide: ${guilty}`);
}

const scenarios = {
  /** Every view of a job that runs, by eye, by keyboard, on a phone, in the dark. */
  async views() {
    await live();
    const seen = await status();
    assert.equal(await text("#name"), seen.job);
    await until("a commit is drawn", () => document.querySelectorAll("#cycles rect").length > 20);
    await until("rates are known", () => /[\dkM]\/s ·/.test(document.querySelector("g.node .told")?.textContent ?? ""));
    assert.equal(await page.locator("g.node").count(), seen.graph.nodes.length);
    assert.equal(await page.locator("path.edge").count(), seen.graph.nodes.flatMap((node) => node.inputs ?? []).length);
    assert.equal(await page.locator("path.edge.shuffle").count(), seen.graph.nodes.flatMap((node) => node.inputs ?? []).filter((it) => it.kind === "shuffle").length);
    assert.equal(await page.locator("#workers .worker").count(), seen.workers.length);
    assert.equal(await page.locator("#ladder .rung").count(), 3);
    assert.equal(await page.locator("#splits tbody tr").count(), seen.splits.length);
    assert.equal(await page.locator("#stores tbody tr").count(), seen.stores.length);
    assert.equal(await page.locator("#starts tbody tr").count(), 1);
    await says("#phase", "running for");
    await says("#cycle", "closed by");
    await says("#positions", "orders-1");
    await page.getByRole("button", { name: "What is open in per-goods?" }).click();
    await until("open windows are shown", () => document.querySelectorAll("#open ol.open li").length > 0);
    await says("#open", "waits until");
    await page.selectOption("#store", "per-goods");
    await page.fill("#key", "tea");
    await page.press("#key", "Enter");
    await says("#found", "as of epoch");
    await page.fill("#key", "<img src=x onerror=hurt=true>");
    await page.press("#key", "Enter");
    await says("#found", "as of epoch");
    await page.locator("g.node", { hasText: "per-goods" }).click();
    await says("#node", "dashboard");
    await shoot("views-light");
    await byKeyboard();
    await page.emulateMedia({ colorScheme: "dark" });
    await until("it is dark", () => getComputedStyle(document.body).backgroundColor === "rgb(13, 16, 23)");
    await shoot("views-dark");
    await noScroll(360);
    await shoot("views-phone");
    await page.emulateMedia({ colorScheme: "light" });
    await noScroll(768);
    await shoot("views-tablet");
  },

  /** A process that is killed, and comes back: the page says so both times. */
  async killed() {
    await live();
    assert.equal(await page.locator("#lost").isVisible(), false);
    const before = await text("#sentence");
    await step("kill");
    await until("the page says it", () => document.querySelector("#live").dataset.live === "lost");
    await says("#lost", "Connection lost. What you see is the past");
    assert.equal(await page.evaluate(() => document.body.classList.contains("lost")), true);
    assert.equal(await text("#live"), "connection lost");
    assert(before.length > 0);
    await shoot("killed", { fullPage: false });
    await step("start");
    await live();
    await until("nothing is lost any more", () => document.querySelector("#lost").hidden);
    assert.equal(await page.evaluate(() => document.body.classList.contains("lost")), false);
  },

  /** A partition without records holds event time: it is named. */
  async stuck() {
    await live();
    await says("#sentence", "event time is held by orders-1, which had no record yet");
    await says("#ladder .holds", "orders-1");
    await says("#ladder .holds", "no record yet");
    await says("#ladder .holds", "holds time");
    await says("#time-about", "Held by orders-1, which had no record yet.");
    assert.equal(await page.locator("#phase").getAttribute("data-phase"), "troubled");
    await shoot("stuck");
  },

  /** A transaction of somebody else, whose name is a trap, keeps readers waiting; the job's own is none of that. */
  async transaction() {
    const [name] = words;
    await live();
    await says("#sentence", "orders-0 is held up by the transaction of");
    await says("#open-transactions .foreign", name);
    await says("#open-transactions .foreign", `onceflow txn abort ${name}`);
    await says("#splits tr.held", name);
    await shoot("transaction");
    await step("abort");
    await until("it is gone", () => !document.querySelector("#open-transactions .foreign"));
    await until("nobody holds", () => !document.querySelector("#splits tr.held"));
  },

  /** A transaction that no coordinator knows of. */
  async hanging() {
    await live();
    await says("#open-transactions .hanging", `a hanging one of producer ${words[0]}`);
    await says("#open-transactions .hanging", "nobody will end it");
    await says("#open-transactions .hanging", "onceflow txn abort-hanging");
    await says("#sentence", "is held up by a hanging transaction");
    await shoot("hanging");
  },

  /** Letters by reason, each decoded beside raw; one goes back once that is confirmed. */
  async letters() {
    await enter();
    await says("#reasons", "invalid digit");
    await page.click("#look-letters");
    await until("letters are shown", () => document.querySelectorAll("#found-letters .letter").length === 2);
    const first = page.locator("#found-letters .letter").first();
    await says("#found-letters .letter", "numbers-0 at offset 2");
    await says("#found-letters .letter", "1 attempt");
    assert.equal(await first.locator(".bytes .decoded").last().innerText(), "<img src=x>");
    assert.equal(await first.locator(".bytes .raw").last().innerText(), "3c 69 6d 67 20 73 72 63 3d 78 3e");
    await shoot("letters");
    await first.locator("button").click();
    await page.locator("#sure").waitFor();
    await shoot("letters-sure", { fullPage: false });
    assert.equal(await page.evaluate(() => document.activeElement.id), "sure-no");
    await page.keyboard.press("Escape");
    await until("nothing is asked", () => !document.querySelector("#sure").open);
    assert.equal(await text("#letters-told"), "");
    await first.locator("button").focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await says("#letters-told", "1 letter is given back to the job.");
    await until("it is on its way, or was taken", () => [...document.querySelectorAll("#found-letters .letter")]
      .some((it) => it.innerText.includes("at offset 2") && !it.innerText.includes("not replayed")));
    await page.emulateMedia({ colorScheme: "dark" });
    await noScroll(360);
    await shoot("letters-phone-dark");
  },

  /** A topic as it lies in the log, and what came of one of its records. */
  async records() {
    await live();
    await until("topics are known", () => document.querySelectorAll("#topic option").length > 3);
    assert.equal(await page.inputValue("#follower"), "shop");
    await page.selectOption("#topic", "orders");
    await page.fill("#from", "0");
    await page.press("#from", "Enter");
    await says("#records-told", "orders-0 has offsets 0 to");
    const rows = page.locator("#found-records .record");
    assert.equal(await rows.count(), 20);
    assert.equal(await rows.first().locator(".what b").innerText(), "0");
    const first = await page.evaluate(async () => (await fetch("records/orders?partition=0&from=0&limit=1")).json());
    assert.equal(await rows.first().locator(".decoded").last().innerText(), first.records[0].value.decoded);
    await rows.first().getByRole("button", { name: "Follow it" }).press("Enter");
    await says("#followed", "shop consumed orders-0 at offset 0 in a transaction of shop-");
    assert.equal(await page.evaluate(() => document.activeElement.id), "followed");
    const told = await page.evaluate(async () => (await fetch("records/orders/follow?partition=0&offset=0")).json());
    assert(told.wrote.some((part) => part.role === "state" && part.is_whole), "state changes are told");
    assert.equal(await page.locator("#followed .part").count(), told.wrote.length);
    await page.locator("#followed .part summary").first().press("Enter");
    await until("the records of a partition are shown", () => document.querySelector("#followed .part[open] .record .decoded"));
    await says("#followed", `${told.positions[0].topic}-${told.positions[0].partition}`);
    await shoot("records");
    await page.getByRole("button", { name: "Newer" }).click();
    await until("the next page is there", () => document.querySelector("#found-records .record .what b").innerText === "20");
    await page.getByRole("button", { name: "Older" }).click();
    await until("the page before is there", () => document.querySelector("#found-records .record .what b").innerText === "0");
    await page.selectOption("#topic", "sales");
    await page.fill("#from", "beginning");
    await page.press("#from", "Enter");
    await says("#found-records", "marker: commit");
    await page.fill("#from", "soon");
    await page.press("#from", "Enter");
    await says("#records-told", "soon is no place");
    await page.fill("#partition", "9");
    await page.fill("#from", "0");
    await page.press("#from", "Enter");
    await says("#records-told", "its partitions are 0 to");
    await page.fill("#partition", "0");
    await page.press("#partition", "Enter");
    await page.fill("#follower", "<img src=x onerror=hurt=true>");
    await until("records are there", () => document.querySelector("#found-records .record button"));
    await rows.first().getByRole("button", { name: "Follow it" }).click();
    await says("#followed", "has committed no position in sales-0");
    await page.fill("#follower", "shop");
    await page.selectOption("#topic", "orders");
    await page.press("#from", "Enter");
    await says("#records-told", "orders-0 has offsets");
    await rows.first().getByRole("button", { name: "Follow it" }).click();
    await says("#followed", "What came of it");
    await page.emulateMedia({ colorScheme: "dark" });
    await noScroll(360);
    await shoot("records-phone-dark");
  },

  /** A log without a job: what it has is shown, what it has not is said, and a transaction is aborted. */
  async log() {
    await enter();
    await says("#log-sentence", "1 topic, 2 groups");
    await says("#log", "belong to a job, and are left out here");
    for (const id of ["job", "graph", "commits", "time", "positions", "state", "letters", "lives"]) {
      assert.equal(await page.locator(`#${id}`).isVisible(), false, id);
    }
    await says("#topic-rows", "orders-1");
    await says("#topic-rows tr.held", "1 offset not decided");
    await says("#group-rows", "readers");
    await says("#group-rows", "<img src=x");
    await says("#open-transactions .foreign", "slow");
    for (const [key, id] of [["2", "topics"], ["3", "groups"], ["5", "transactions"], ["0", "records"], ["1", "log"]]) {
      await page.keyboard.press(key);
      assert.equal(await page.evaluate(() => document.activeElement.id), id);
    }
    await page.selectOption("#topic", "orders");
    await page.fill("#partition", "1");
    await page.press("#partition", "Enter");
    await says("#found-records", "of an open transaction");
    await shoot("log");
    await page.getByRole("button", { name: "Abort it" }).click();
    await page.click("#sure-yes");
    await says("#transactions-told", "was aborted.");
    await until("it is gone", () => !document.querySelector("#open-transactions .foreign"));
    await page.press("#partition", "Enter");
    await says("#found-records", "aborted: nobody is shown it");
    await page.emulateMedia({ colorScheme: "dark" });
    await noScroll(360);
    await shoot("log-phone-dark");
  },

  /** A transaction of somebody else is aborted, once that is confirmed. */
  async abort() {
    const [, name] = words;
    await enter();
    await says("#open-transactions .foreign", name);
    const button = page.getByRole("button", { name: "Abort it" });
    await button.click();
    await says("#sure-question", `Abort the transaction of ${name}?`);
    await page.click("#sure-no");
    await step("held");
    await button.click();
    await shoot("abort-sure", { fullPage: false });
    await page.click("#sure-yes");
    await says("#transactions-told", "was aborted.");
    await step("aborted");
    await until("it is gone", () => !document.querySelector("#open-transactions .foreign"));
  },

  /** The page asks for the token, and shows nothing before. */
  async token() {
    const [token] = words;
    await page.locator("#door").waitFor();
    assert.equal(await page.locator("main").isVisible(), false);
    await page.fill("#token", "a token that is not the one");
    await page.press("#token", "Enter");
    await says("#wrong", "That is not the token.");
    await page.fill("#token", token);
    await page.press("#token", "Enter");
    await live();
    assert.equal(await page.locator("main").isVisible(), true);
    await page.reload();
    await live();
  },
};

/** Gives the token, which is the first word of the scenario. */
async function enter() {
  await page.locator("#door").waitFor();
  await page.fill("#token", words[0]);
  await page.press("#token", "Enter");
  await live();
}

/** Everything that can be used is reached with the keyboard alone. */
async function byKeyboard() {
  await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
  const ids = ["job", "graph", "commits", "time", "transactions", "positions", "state", "letters", "lives", "records"];
  for (const [place, id] of ids.entries()) {
    await page.keyboard.press(String((place + 1) % 10));
    assert.equal(await page.evaluate(() => document.activeElement.id), id);
  }
  const wanted = await page.evaluate(() => [...document.querySelectorAll("nav a, g.node, #graph-scroll, #cycles, #open button, #store, #key, #lookup button, #look-letters, #browse select, #browse input, #browse button, footer a")].length);
  await page.evaluate(() => { document.activeElement.blur(); });
  await page.keyboard.press("1");
  await page.evaluate(() => { document.querySelector(".skip").focus(); document.querySelectorAll("[data-reached]").forEach((it) => delete it.dataset.reached); });
  for (let presses = 0; presses < wanted + 40; presses += 1) {
    await page.keyboard.press("Tab");
    await page.evaluate(() => { if (document.activeElement) document.activeElement.dataset.reached = "yes"; });
  }
  const missed = await page.evaluate(() => [...document.querySelectorAll("nav a, g.node, #graph-scroll, #cycles, #open button, #store, #key, #lookup button, #look-letters, #browse select, #browse input, #browse button, footer a")]
    .filter((it) => !it.dataset.reached && it.offsetParent !== null).map((it) => it.outerHTML.slice(0, 80)));
  assert.deepEqual(missed, []);
  await page.focus("#cycles");
  const at = () => page.locator("#cycles").getAttribute("aria-valuetext");
  assert.match(await at(), /^Newest/);
  await page.keyboard.press("ArrowLeft");
  assert.match(await at(), /^\d.*closed by/);
  await page.keyboard.press("End");
  const node = page.locator("g.node").first();
  await node.focus();
  await page.keyboard.press("Enter");
  assert.equal(await node.getAttribute("aria-pressed"), "true");
}

try {
  const answer = await page.goto(url);
  const policy = answer.headers()["content-security-policy"] ?? "";
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
  await scenarios[scenario]();
  assert.equal(await page.evaluate(() => window.hurt), false, "what came from outside was run");
  assert.equal(await page.locator("main img, main script, main iframe").count(), 0);
  assert.deepEqual(errors, [], "the console has errors");
  assert.deepEqual(foreign, [], "somebody else was asked");
} catch (error) {
  const shown = await page.evaluate(() => document.body.innerText.slice(0, 3000)).catch(() => "nothing");
  process.stderr.write(`${scenario}: ${error.stack}\nconsole: ${errors.join("\n")}\nthe page:\n${shown}\n`);
  await shoot(`failed-${scenario}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  process.exit();
}
