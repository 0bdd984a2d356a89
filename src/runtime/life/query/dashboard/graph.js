// The graph: drawn once in layers, from the sources on; what changes is written into it each second.

import { at, bytes, count, h, put, say, short, svg } from "./dom.js";
import { rate } from "./job.js";

/** A node with a name, numbers or a store; and a step that has none of these. */
const LARGE = { width: 156, height: 62 };
const SMALL = { height: 34, letter: 7.6 };
const GAP = { along: 34, across: 18 };
const MARGIN = 8;
/** Below this width of the page the graph runs downwards. */
const NARROW = 720;

let drawn = { of: "", isDown: null, heads: new Map() };
let chosen = null;

export function showGraph(seen) {
  const status = seen.at(-1);
  const isDown = at("graph-scroll").clientWidth < NARROW;
  const of = JSON.stringify(status.graph);
  if (drawn.of !== of || drawn.isDown !== isDown) {
    draw(status.graph, isDown);
    drawn.of = of;
    drawn.isDown = isDown;
  }
  const seconds = lately(seen);
  for (const head of drawn.heads.values()) {
    const chain = (it) => it.chains.filter((part) => head.chains.includes(part.name));
    const records = rate(seen, (it) => chain(it).reduce((sum, part) => sum + part.records, 0));
    const busy = seconds && share(seen, chain, status.workers.length, seconds);
    say(head.told, records === null ? "…" : `${short(records)}/s · ${Math.round((busy ?? 0) * 100)} % busy`);
    head.bar.setAttribute("width", ((LARGE.width - 2) * Math.min(1, busy ?? 0)).toFixed(1));
    const heat = busy > 0.8 ? "hot" : busy > 0.4 ? "warm" : "cool";
    if (head.bar.dataset.heat !== heat) head.bar.dataset.heat = heat;
    const isFlowing = records > 0;
    for (const edge of head.edges) edge.classList.toggle("flows", isFlowing);
  }
  if (chosen !== null) detail(status, chosen);
  showWorkers(seen);
}

/** The seconds between the views that rates are made of. */
function lately(seen) {
  const then = seen[Math.max(0, seen.length - 6)];
  const millis = seen.at(-1).now - then.now;
  return millis > 0 ? millis / 1000 : null;
}

/** The part of all workers' time that a chain had lately. */
function share(seen, chain, workers, seconds) {
  const micros = (it) => chain(it).reduce((sum, part) => sum + part.busy_micros, 0);
  const then = seen[Math.max(0, seen.length - 6)];
  return Math.max(0, micros(seen.at(-1)) - micros(then)) / 1e6 / seconds / Math.max(1, workers);
}

const isHead = (node) => !node.inputs?.length || node.inputs.some((edge) => edge.kind === "shuffle");
const titleOf = (node) => node.name ?? node.kind;

const wordsOf = (node) => (node.name ? node.name : node.kind.replaceAll("_", " "));
const isLarge = (node) => isHead(node) || node.name !== undefined || node.stores?.length > 0 || node.kind === "sink";

function sizeOf(node) {
  if (node.passes) return { width: 0, height: LARGE.height };
  return isLarge(node) ? LARGE : { width: Math.min(LARGE.width, 26 + wordsOf(node).length * SMALL.letter), height: SMALL.height };
}

/**
 * Nodes by layer, each as near to what it leads into as can be. An edge over several layers passes through places of its own
 * there, so that it crosses no node.
 */
function layersOf(nodes) {
  const layer = new Map();
  for (const node of nodes) {
    const before = (node.inputs ?? []).map((edge) => layer.get(edge.from) ?? 0);
    layer.set(node.number, before.length ? Math.max(...before) + 1 : 0);
  }
  for (const node of [...nodes].reverse()) {
    const behind = nodes.filter((it) => it.inputs?.some((edge) => edge.from === node.number)).map((it) => layer.get(it.number));
    if (behind.length) layer.set(node.number, Math.min(...behind) - 1);
  }
  const layers = [];
  const put = (item, where) => (layers[where] ??= []).push(item);
  const edges = [];
  for (const node of nodes) {
    const item = { node, id: node.number, from: [] };
    put(item, layer.get(node.number));
    for (const edge of node.inputs ?? []) {
      const way = [edge.from];
      for (let between = layer.get(edge.from) + 1; between < layer.get(node.number); between += 1) {
        const id = `${edge.from}-${node.number}-${edge.port ?? ""}-${between}`;
        put({ node: { passes: true }, id, from: [way.at(-1)] }, between);
        way.push(id);
      }
      item.from.push(way.at(-1));
      edges.push({ edge, to: node.number, way: [...way, node.number] });
    }
  }
  return { layers, edges };
}

/** By node, its box: what follows one another stands in a line where that can be. */
function placesOf(layers, isDown) {
  const [length, breadth] = isDown ? ["height", "width"] : ["width", "height"];
  const rank = new Map();
  for (const items of layers) {
    const wish = (item) => (item.from.length ? item.from.reduce((sum, it) => sum + rank.get(it), 0) / item.from.length : 0);
    const wishes = new Map(items.map((item, place) => [item.id, item.from.length ? wish(item) : place]));
    const order = [...items].sort((a, b) => wishes.get(a.id) - wishes.get(b.id));
    let free = 0;
    for (const item of order) {
      const wanted = wishes.get(item.id);
      rank.set(item.id, Math.max(free, order.length === 1 ? wanted : Math.floor(wanted)));
      free = rank.get(item.id) + 1;
    }
  }
  const places = new Map();
  let along = MARGIN;
  const hasPorts = (items) => items?.some((item) => item.node.inputs?.some((edge) => edge.port));
  for (const [layer, items] of layers.entries()) {
    const room = Math.max(...items.map((item) => sizeOf(item.node)[length]));
    for (const item of items) {
      const size = sizeOf(item.node);
      const row = MARGIN + rank.get(item.id) * (LARGE[breadth] + GAP.across) + (LARGE[breadth] - size[breadth]) / 2;
      const column = along + (isDown ? (room - size[length]) / 2 : 0);
      places.set(item.id, { x: isDown ? row : column, y: isDown ? column : row, ...size });
    }
    // The names of inputs stand between two layers.
    along += room + (isDown ? 30 : GAP.along + (hasPorts(layers[layer + 1]) ? 26 : 0));
  }
  return places;
}

function draw(graph, isDown) {
  const { layers, edges } = layersOf(graph.nodes);
  const places = placesOf(layers, isDown);
  const most = (end) => Math.max(...[...places.values()].map(end)) + MARGIN;
  const [width, height] = [most((it) => it.x + it.width), most((it) => it.y + it.height)];
  const heads = new Map();
  const labels = [];
  const side = isDown ? "x" : "y";
  const paths = edges.map(({ edge, to, way }) => {
    const points = way.map((id) => places.get(id));
    // Several edges into one node come in beside each other, in the order in which they come from.
    const beside = edges.filter((it) => it.to === to).sort((a, b) => places.get(a.way.at(-2))[side] - places.get(b.way.at(-2))[side]);
    const part = (beside.findIndex((it) => it.edge === edge) + 1) / (beside.length + 1);
    const { d, last } = line(points, isDown, part);
    if (edge.port) {
      labels.push(svg("text", { class: "port", x: last.x - (isDown ? -6 : 10), y: last.y + (isDown ? -9 : part > 0.5 ? 13 : -6), "text-anchor": isDown ? "start" : "end" }, edge.port));
    }
    return { to, drawing: svg("path", { class: `edge ${edge.kind}`, d, "marker-end": "url(#arrow)" }) };
  });
  const boxes = graph.nodes.map((node) => {
    const into = paths.filter((path) => path.to === node.number).map((path) => path.drawing);
    return box(node, places.get(node.number), into, heads);
  });
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    svg("path", { class: "arrow", d: "M0 0.5 L7.5 4 L0 7.5 Z" }));
  const drawing = svg("svg", { class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Nodes of the job",
    css: { "min-width": `${Math.floor(width * (isDown ? 0.9 : 0.8))}px` } },
    svg("defs", {}, arrow), paths.map((path) => path.drawing), labels, boxes);
  put(at("graph-scroll"), drawing);
  drawn = { of: "", isDown, heads, nodes: graph.nodes };
}

/** The node that the function of this one begins at. */
function headOf(nodes, node) {
  let at = node;
  for (let steps = 0; steps < nodes.length && !isHead(at); steps += 1) {
    const before = nodes.find((it) => it.number === at.inputs[0].from);
    if (!before) break;
    at = before;
  }
  return at.number;
}

/** A line from box to box, bent between layers. */
function line(points, isDown, part) {
  const leave = (it) => (isDown ? { x: it.x + it.width / 2, y: it.y + it.height } : { x: it.x + it.width, y: it.y + it.height / 2 });
  const enter = (it, part) => (isDown ? { x: it.x + it.width * part, y: it.y } : { x: it.x, y: it.y + it.height * part });
  const start = leave(points[0]);
  let d = `M${start.x} ${start.y}`;
  let before = start;
  for (const point of points.slice(1)) {
    const to = enter(point, point === points.at(-1) ? part : 0.5);
    const end = point === points.at(-1) ? { x: to.x - (isDown ? 0 : 2), y: to.y - (isDown ? 2 : 0) } : to;
    const [x, y] = [(before.x + end.x) / 2, (before.y + end.y) / 2];
    d += isDown ? ` C${before.x} ${y} ${end.x} ${y} ${end.x} ${end.y}` : ` C${x} ${before.y} ${x} ${end.y} ${end.x} ${end.y}`;
    before = point === points.at(-1) ? end : leave(point);
    if (before !== end) d += ` L${before.x} ${before.y}`;
  }
  return { d, last: before };
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function box(node, place, into, heads) {
  const choose = () => {
    chosen = chosen === node.number ? null : node.number;
    for (const other of document.querySelectorAll("g.node")) {
      other.setAttribute("aria-pressed", String(other.dataset.number === String(chosen)));
    }
    if (chosen === null) put(at("node"));
    else detail(null, chosen);
  };
  const pressed = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  };
  const isBig = isLarge(node);
  const parts = [
    svg("title", {}, `${titleOf(node)}: ${node.kind}, ${node.location}`),
    svg("rect", { class: "box", width: place.width, height: place.height, rx: 9 }),
    isBig && svg("text", { class: "kind", x: 12, y: isHead(node) ? 19 : 26 }, cut(node.name === undefined ? "step" : node.kind.replaceAll("_", " "), 22)),
    svg("text", isBig ? { class: "name", x: 12, y: isHead(node) ? 37 : 45 } : { class: "step", x: place.width / 2, y: 21.5, "text-anchor": "middle" }, cut(wordsOf(node), isBig ? 16 : 19)),
  ];
  if (node.stores?.length) parts.push(svg("path", { class: "store", d: storeSign(place.width - 24, 9) }));
  const group = svg("g", {
    class: `node ${isHead(node) ? "head" : ""}`, transform: `translate(${place.x} ${place.y})`, tabindex: 0, role: "button",
    "aria-pressed": String(chosen === node.number), "aria-label": `${titleOf(node)}, ${node.kind}`, "data-number": node.number,
    on: { click: choose, keydown: pressed },
  }, parts);
  if (isHead(node)) {
    const told = svg("text", { class: "told", x: 12, y: 53 }, "…");
    const bar = svg("rect", { class: "busy", x: 1, y: place.height - 4, height: 3, width: 0, rx: 1.5 });
    group.append(told, bar);
    heads.set(node.number, { chains: chainsOf(node), told, bar, edges: into });
  }
  return group;
}

/** The names under which work on what comes into a node is counted: its own, and that of each of its inputs. */
function chainsOf(node) {
  const ports = (node.inputs ?? []).filter((edge) => edge.port).map((edge) => `${titleOf(node)}-${edge.port}`);
  return [titleOf(node), ...ports];
}

/** A drum, the sign of a store. */
const storeSign = (x, y) =>
  `M${x} ${y + 2.5} a6 2.5 0 0 1 12 0 v8 a6 2.5 0 0 1 -12 0 z M${x} ${y + 2.5} a6 2.5 0 0 0 12 0`;

/** What is known of the chosen node. */
function detail(status, number) {
  const node = drawn.nodes?.find((it) => it.number === number);
  if (!node) return;
  const place = at("node");
  if (place.dataset.of !== `${drawn.of.length} ${number}` || !place.firstChild) {
    place.dataset.of = `${drawn.of.length} ${number}`;
    const stores = (node.stores ?? []).map((store) => h("li", {}, h("b", {}, store.name), ` ${store.value} by ${store.key.replace("with time: ", "")}`));
    put(place, h("p", {}, h("b", {}, titleOf(node)), ` ${node.kind} · `, h("code", {}, node.location)),
      stores.length ? h("ul", {}, stores) : null, h("p", { class: "chain-rows" }));
  }
  if (!status) return;
  const head = drawn.heads.get(headOf(drawn.nodes, node));
  const parts = status.chains.filter((part) => head?.chains.includes(part.name));
  const told = parts.map((part) => `worker ${part.worker}: ${count(part.records)} records`).join(" · ");
  say(place.querySelector(".chain-rows"), told ? `In its function — ${told}` : "");
}

/** How workers spend their time. */
function showWorkers(seen) {
  const status = seen.at(-1);
  const then = seen[Math.max(0, seen.length - 6)];
  const rows = status.workers.map((worker) => {
    const before = then.workers.find((it) => it.worker === worker.worker) ?? worker;
    const spent = ["busy", "blocked", "idle"].map((state) => {
      const micros = (it) => it[`${state}_micros`];
      return seen.length > 1 && then !== status ? Math.max(0, micros(worker) - micros(before)) : micros(worker);
    });
    const whole = Math.max(1, spent.reduce((sum, it) => sum + it, 0));
    const [busy, blocked, idle] = spent.map((it) => Math.round((it * 100) / whole));
    const bar = h("div", { class: "split-bar", role: "img", "aria-label": `busy ${busy} %, blocked ${blocked} %, idle ${idle} %` },
      h("i", { class: "busy", css: { width: `${busy}%` } }), h("i", { class: "blocked", css: { width: `${blocked}%` } }));
    return h("div", { class: "worker" }, h("b", {}, `worker ${worker.worker}`), bar,
      h("span", {}, `${busy} % busy · ${blocked} % blocked · queue ${bytes(worker.queue_bytes)}`));
  });
  put(at("workers"), rows);
}
