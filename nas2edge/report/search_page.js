"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const { axes, points, genes, devices } = data;
const byId = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;
const HEAT = ["#dfeaf4", "#bdd5ea", "#8fb8da", "#5a94c4", "#2c6ea6", "#0f4474"];
const GENE_TITLES = { resolution: "resolution, pixels", width: "width, channels", depth: "depth, blocks",
  kernel_size: "kernel size", expand_ratio: "expansion ratio" };
const PRINT_WIDTH = 690;
let axisIndex = 0;
let selected = data.best;
let forcedWidth = 0;  // of charts while the page prints
const widthOf = (id) => forcedWidth || Math.max(280, byId(id).clientWidth);

// ---------------------------------------------------------------- elements and numbers

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
const tag = (text, kind) => el("span", { class: `tag ${kind || text}` }, text);

function formatCount(value) {
  const rounded = Number(value.toPrecision(4));
  for (const [unit, scale] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(rounded) >= scale) return String(Number((rounded / scale).toPrecision(4))) + unit;
  }
  return String(rounded);
}
function latencyUnit(ms) {
  return Math.abs(Number(ms.toPrecision(3))) >= 1000 ? ["s", 1e-3] : Math.abs(Number(ms.toPrecision(3))) >= 1 ? ["ms", 1] : ["µs", 1e3];
}
function formatLatency(ms, sigma) {
  if (!ms) return "0 ms";
  const [unit, scale] = latencyUnit(ms);
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(ms * scale))));
  const error = sigma === null || sigma === undefined ? "" : ` ± ${(sigma * scale).toFixed(decimals)}`;
  return `${(ms * scale).toFixed(decimals)}${error} ${unit}`;
}
function formatValue(axis, value, sigma) {
  if (axis.unit === "ms") return formatLatency(value, sigma);
  const error = sigma === null || sigma === undefined ? "" : ` ± ${formatCount(sigma)}`;
  return `${formatCount(value)}${error} ${axis.unit}`.trim();
}
const formatAccuracy = (value) => `${value.toFixed(2)} ± ${Number(data.accuracy.error).toFixed(2)} %`;
const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${(100 * share).toFixed(0)} %`);
const signed = (value, text) => (value < 0 ? "−" : "+") + text;

function ticks(low, high, most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (/^2\.5/.test(String(step / power)) ? 1 : 0));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step || 0);  // not -0
  return { values: found, decimals };
}
function extent(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.05 || 1;
  return [low - pad, high + pad];
}

// ---------------------------------------------------------------- the front

const front = {};
function scaleOf(axis) {
  if (axis.unit === "ms") {
    const largest = Math.max(...points.map((point) => point.values[axisIndex]));
    const [unit, scale] = latencyUnit(largest);
    return { unit, scale, suffix: "" };
  }
  const largest = Math.max(...points.map((point) => point.values[axisIndex]));
  const [suffix, scale] = largest >= 1e9 ? ["G", 1e-9] : largest >= 1e6 ? ["M", 1e-6] : largest >= 1e4 ? ["k", 1e-3] : ["", 1];
  return { unit: axis.unit, scale, suffix };
}
function axisTitle(axis) {
  const { unit, suffix } = scaleOf(axis);
  const words = [suffix && { G: "10⁹", M: "10⁶", k: "10³" }[suffix], unit].filter(Boolean).join(" ");
  return axis.title + (words ? `, ${words}` : "") + (axis.origin === "exact" ? "" : ` (${axis.origin})`);
}

function drawFront() {
  const axis = axes[axisIndex];
  const width = widthOf("front-chart");
  const height = Math.round(Math.min(480, Math.max(300, width * 0.62)));
  const left = 46, right = width - 14, top = 30, bottom = height - 42;
  const values = points.map((point) => point.values[axisIndex]);
  let [lowX, highX] = extent(values);
  let [lowY, highY] = extent(points.map((point) => point.accuracy));
  const near = axis.limit !== null && axis.limit <= highX + 0.6 * (highX - lowX);
  if (near) highX = Math.max(highX, axis.limit + 0.04 * (highX - lowX));
  const clouds = data.dominated && data.dominated.values[axisIndex] ? data.dominated.values[axisIndex] : [];
  if (clouds.length) { lowY -= 0.35 * (highY - lowY); highX += 0.1 * (highX - lowX); }
  lowX = Math.max(0, lowX);
  const x = (value) => left + ((value - lowX) / (highX - lowX)) * (right - left);
  const y = (value) => bottom - ((value - lowY) / (highY - lowY)) * (bottom - top);

  const root = byId("front");
  root.replaceChildren();
  fill(root, { viewBox: `0 0 ${width} ${height}`, role: "listbox", "aria-label": `The front: accuracy against ${axisTitle(axis)}; arrow keys select` }, []);
  const add = (name, attributes, ...children) => root.appendChild(svg(name, attributes, ...children));
  const { scale } = scaleOf(axis);
  const inX = ticks(lowX * scale, highX * scale, Math.max(3, Math.floor((right - left) / 70)));
  for (const value of inX.values) {
    const at = x(value / scale);
    add("line", { class: "grid", x1: at, x2: at, y1: top, y2: bottom });
    add("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, value.toFixed(inX.decimals));
  }
  const inY = ticks(lowY, highY, Math.floor((bottom - top) / 42));
  for (const value of inY.values) {
    add("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) });
    add("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(inY.decimals));
  }
  add("path", { class: "axis", fill: "none", d: `M${left},${top}V${bottom}H${right}` });
  add("text", { class: "name", x: 0, y: 14 }, `top-1 accuracy, % (${data.accuracy.origin}: ${data.accuracy.source})`);
  add("text", { class: "name", x: right, y: height - 4, "text-anchor": "end" }, axisTitle(axis));

  if (near) {
    const at = x(axis.limit);
    add("rect", { class: "beyond", x: at, y: top, width: Math.max(0, right - at), height: bottom - top });
    add("line", { class: "limit", x1: at, x2: at, y1: top, y2: bottom });
    const inside = at - left > 110;
    add("text", { class: "limit-text halo", x: at + (inside ? -6 : 6), y: bottom - 8, "text-anchor": inside ? "end" : "start" }, `limit ${axis.limit_text}`);
  } else if (axis.limit !== null) {
    add("text", { class: "limit-text halo", x: right - 2, y: bottom - 8, "text-anchor": "end" }, `limit ${axis.limit_text}, farther right →`);
  }

  const cloud = svg("g", { "aria-hidden": "true" });
  clouds.forEach((value, i) => {
    const at = data.dominated.accuracy[i];
    if (value >= lowX && value <= highX && at >= lowY && at <= highY) cloud.append(svg("circle", { class: "dominated", cx: x(value).toFixed(1), cy: y(at).toFixed(1), r: 2 }));
  });
  root.append(cloud);
  const order = sortedPoints();
  if (axis.staircase && order.length > 1) {
    const steps = order.map((i, k) => `${k ? "H" : "M"}${x(values[i]).toFixed(1)}${k ? "V" : ","}${y(points[i].accuracy).toFixed(1)}`);
    add("path", { class: "stairs", d: steps.join("") });
  }
  root.classList.toggle("dense", points.length > 150);
  front.marks = add("g", { "aria-hidden": "true" });
  const radius = points.length > 150 ? 3.5 : points.length > 40 ? 4.5 : 6;
  front.circles = [];
  for (const i of [...order.filter((k) => k !== data.best), data.best]) {
    const point = points[i];
    const label = `${formatAccuracy(point.accuracy)}, ${formatValue(axis, values[i], point.sigmas[axisIndex])}${i === data.best ? ", chosen" : ""}`;
    front.circles[i] = add("circle", { class: i === data.best ? "point best" : "point", "data-point": i, cx: x(values[i]).toFixed(1), cy: y(point.accuracy).toFixed(1),
      r: i === data.best ? radius + 1.5 : radius, role: "option", "aria-label": label, tabindex: -1 });
  }
  front.hover = add("g", { "aria-hidden": "true" });
  Object.assign(front, { x, y, radius, order, left, right, top, bottom, width });
  drawFrontLegend(axis, clouds.length);
  markSelected();
}

function drawFrontLegend(axis, nClouds) {
  const dot = (kind, r) => el("span", { "aria-hidden": "true" }, svg("svg", { viewBox: "0 0 22 12" }, svg("circle", { class: kind, cx: 11, cy: 6, r })));
  const items = [el("span", {}, dot("point", 4), points.length < data.total ? `on the front: ${points.length} of ${data.total.toLocaleString("en")}, evenly` : "on the front")];
  items.push(el("span", {}, dot("point best", 5), "chosen"), el("span", {}, dot("ring", 5), "selected, with one-sigma errors"));
  if (nClouds) items.push(el("span", {}, dot("dominated", 3), `dominated (a sample of ${data.dominated.total.toLocaleString("en")})`));
  if (!axis.staircase && points.length > 1) items.push(el("span", {}, "Points that look dominated here are better in another respect."));
  byId("front-legend").replaceChildren(...items);
}

function sortedPoints() {
  return points.map((_, i) => i).sort((a, b) => points[a].values[axisIndex] - points[b].values[axisIndex] || points[a].accuracy - points[b].accuracy);
}

function markSelected() {
  const { x, y, radius, marks, circles } = front;
  const point = points[selected], value = point.values[axisIndex], sigma = point.sigmas[axisIndex];
  const at = x(value), up = y(point.accuracy);
  const clampX = (v) => Math.min(front.right, Math.max(front.left, v)), clampY = (v) => Math.min(front.bottom, Math.max(front.top, v));
  const error = Number(data.accuracy.error);
  marks.replaceChildren();
  const line = (x1, x2, y1, y2) => marks.append(svg("line", { class: "error", x1, x2, y1, y2 }));
  for (const side of sigma ? [-1, 1] : []) {  // an end that lies outside the chart has no cap
    const end = x(value + side * sigma);
    line(at, clampX(end), up, up);
    if (clampX(end) === end) line(end, end, up - 5, up + 5);
  }
  for (const side of [-1, 1]) {
    const end = y(point.accuracy + side * error);
    line(at, at, up, clampY(end));
    if (clampY(end) === end) line(at - 5, at + 5, end, end);
  }
  front.hover.replaceChildren(svg("circle", { class: "ring", cx: at, cy: up, r: radius + 4.5 }));
  circles.forEach((circle, i) => {
    circle.setAttribute("tabindex", i === selected ? 0 : -1);
    circle.setAttribute("aria-selected", i === selected);
  });
}

function nearest(event) {
  const box = byId("front").getBoundingClientRect();
  const unit = front.width / box.width;
  const at = (event.clientX - box.left) * unit, up = (event.clientY - box.top) * unit;
  let best = -1, least = 26 ** 2;
  points.forEach((point, i) => {
    const d = (front.x(point.values[axisIndex]) - at) ** 2 + (front.y(point.accuracy) - up) ** 2;
    if (d < least) { best = i; least = d; }
  });
  return best;
}

function tipLines(i) {
  const point = points[i];
  const lines = [el("p", {}, el("b", {}, formatAccuracy(point.accuracy)), " ", tag(data.accuracy.origin), i === data.best ? " " : null, i === data.best ? tag("chosen") : null)];
  axes.forEach((axis, k) => {
    const name = axis.device ? `${axis.device}${axis.metric === "latency_ms" ? "" : ` ${axis.title}`}` : axis.title;
    lines.push(el("p", {}, `${formatValue(axis, point.values[k], point.sigmas[k])} `, axis.device ? "on " : "", name, " ", axis.origin === "exact" ? null : tag(axis.origin)));
  });
  lines.push(el("div", { class: "mono" }, summaryLines(i).map((text) => el("p", {}, text))));
  return lines;
}
function summaryLines(i) {
  const groups = new Map();
  genes.forEach((gene, k) => groups.set(gene.field, [...(groups.get(gene.field) || []), points[i].genes[k]]));
  const short = { resolution: "r", width: "w", depth: "d", kernel_size: "k", expand_ratio: "e" };
  return [...groups].map(([field, values]) => `${short[field] || `${field} `}${values.join("-")}`);
}
function showTip(tip, lines, at, up, width) {
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const flip = at + tip.offsetWidth + 18 > width;
  tip.style.left = `${Math.max(0, Math.min(width - tip.offsetWidth, flip ? at - tip.offsetWidth - 14 : at + 14))}px`;
  tip.style.top = `${up + 12}px`;
}

function listenToFront() {
  const root = byId("front"), tip = byId("tip");
  const hide = () => { tip.hidden = true; front.hover.querySelector(".hover")?.remove(); };
  root.addEventListener("pointermove", (event) => {
    const i = nearest(event);
    hide();
    if (i < 0) return;
    const at = front.x(points[i].values[axisIndex]), up = front.y(points[i].accuracy);
    front.hover.append(svg("circle", { class: "hover", cx: at, cy: up, r: front.radius + 2 }));
    const factor = root.getBoundingClientRect().width / front.width;
    showTip(tip, tipLines(i), at * factor, up * factor, root.clientWidth || front.width);
  });
  root.addEventListener("pointerleave", hide);
  root.addEventListener("click", (event) => {
    const i = nearest(event);
    if (i >= 0) select(i, true);
  });
  root.addEventListener("keydown", (event) => {
    const order = front.order, at = order.indexOf(selected);
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(order[Math.max(0, Math.min(order.length - 1, to))], true);
  });
}

// ---------------------------------------------------------------- the selected sub-network

function drawSelected() {
  const point = points[selected], best = points[data.best];
  const back = el("button", { type: "button", class: "small", id: "to-best", onclick: () => select(data.best) }, "back to the chosen one");
  byId("selected-id").replaceChildren(el("span", { class: "mono" }, point.id), selected === data.best ? tag("chosen") : back);
  const rows = [];
  const row = (name, text, origin, difference) => rows.push(
    el("dt", {}, name, " ", origin && origin !== "exact" ? tag(origin) : null),
    el("dd", {}, el("b", {}, text), difference ? el("span", { class: "delta" }, `${difference} vs. chosen`) : null));
  const moved = point.accuracy - best.accuracy;
  row("top-1 accuracy", formatAccuracy(point.accuracy), data.accuracy.origin, selected === data.best ? "" : signed(moved, `${Math.abs(moved).toFixed(2)} points`));
  axes.forEach((axis, k) => {
    const change = point.values[k] - best.values[k];
    const difference = selected === data.best || !best.values[k] ? "" : signed(change, `${(Math.abs(change / best.values[k]) * 100).toFixed(1)} %`);
    row(axis.title, formatValue(axis, point.values[k], point.sigmas[k]), axis.origin, difference);
  });
  byId("figures").replaceChildren(...rows);
  byId("configuration").replaceChildren(configurationTable(point));
}

function configurationTable(point) {
  const fields = [...new Set(genes.map((gene) => gene.field))];
  const lists = fields.filter((field) => genes.some((gene) => gene.field === field && gene.index !== null));
  const valueOf = (field, index) => {
    const k = genes.findIndex((gene) => gene.field === field && gene.index === index);
    return k < 0 ? "" : String(point.genes[k]);
  };
  const n = Math.max(0, ...lists.map((field) => genes.filter((gene) => gene.field === field).length));
  const framed = isFramed();
  const rows = [];
  for (let i = 0; i < n; i++) {
    const cells = lists.map((field) => valueOf(field, framed && field !== "width" ? i - 1 : i));
    rows.push(el("tr", {}, el("th", { scope: "row" }, framed ? placeName(i, n) : String(i)), cells.map((text) => el("td", { class: "n" }, text))));
  }
  const scalars = fields.filter((field) => !lists.includes(field)).map((field) => `${field.replace("_", " ")} ${valueOf(field, null)}`);
  const heads = { kernel_size: "kernel", expand_ratio: "expansion" };
  return el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, scalars.join(", ")), lists.map((field) => el("th", { scope: "col", class: "n" }, heads[field] || field)))),
    el("tbody", {}, rows));
}
/* Widths count stem and head beside the stages; the other fields only the stages. */
function isFramed() {
  const count = (field) => genes.filter((gene) => gene.field === field && gene.index !== null).length;
  return count("width") === count("depth") + 2 && count("depth") > 0;
}
const placeName = (i, n) => (i === 0 ? "stem" : i === n - 1 ? "head" : `stage ${i - 1}`);

function subnetFile(i) {
  const point = points[i], subnet = {}, predicted = {};
  genes.forEach((gene, k) => {
    if (gene.index === null) subnet[gene.field] = point.genes[k];
    else (subnet[gene.field] = subnet[gene.field] || []).push(point.genes[k]);
  });
  Object.assign(predicted, { accuracy: point.accuracy, accuracy_source: data.accuracy.source, accuracy_error: data.accuracy.error });
  axes.forEach((axis, k) => {
    const suffix = axis.device === null || axis.device === data.subnet_file.device ? "" : `:${axis.device}`;
    predicted[axis.metric + suffix] = point.values[k];
    if (axis.metric !== "latency_ms") return;
    predicted[`latency_sigma_ms${suffix}`] = point.sigmas[k];
    predicted[`latency_kind${suffix}`] = axis.origin;
    predicted[`measured_share${suffix}`] = point.shares[devices.findIndex((device) => device.name === axis.device)];
  });
  return { format: "nas2edge.subnet", version: 1, id: point.id, space: data.space.raw, subnet, ...data.subnet_file, predicted };
}

function drawNext() {
  const chosen = selected === data.best;
  const file = chosen ? data.export.subnet : `subnet-${points[selected].id}.json`;
  const quoted = /^[\w@%+=:,./-]+$/.test(file) ? file : `'${file.replaceAll("'", `'"'"'`)}'`;
  const weights = data.export.weights ? "" : " --supernet RUN";
  const parts = [];
  const save = () => {
    const text = JSON.stringify(subnetFile(selected), null, 2) + "\n";
    const link = el("a", { href: `data:application/json;charset=utf-8,${encodeURIComponent(text)}`, download: `subnet-${points[selected].id}.json` });
    document.body.append(link); link.click(); link.remove();
  };
  if (chosen) parts.push(el("p", { class: "explain" }, "The search wrote the chosen sub-network; export it with proof that nothing changed:"));
  else parts.push(el("p", { class: "explain" }, "This one is not the chosen one. Save it, then export it: ", el("button", { type: "button", class: "copy", onclick: save }, `save subnet-${points[selected].id}.json`)));
  parts.push(commandLine(`nas2edge export ${quoted} --to onnx${weights}`));
  if (weights) parts.push(el("p", { class: "explain" }, "RUN is a supernet of this space: the search used no weights, so its accuracies are not of any weights of yours."));
  if (data.export.command) parts.push(el("p", { class: "explain" }, "To search again with the same result:"), commandLine(data.export.command));
  byId("next").replaceChildren(...parts);
}
function commandLine(text) {
  const code = el("code", {}, text.split(" ").flatMap((word, i) => [i ? " " : "", el("span", {}, word)]));
  const button = el("button", { type: "button", class: "copy", onclick: async () => {
    try { await navigator.clipboard.writeText(text); } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  } }, "copy");
  return el("div", { class: "command" }, code, button);
}

// ---------------------------------------------------------------- where the milliseconds go

function drawBlocks() {
  const rowed = devices.filter((device) => device.rows);
  const statuses = new Set(rowed.flatMap((device) => device.rows.map((row) => data.statuses[row[2]])));
  rowed.filter((device) => device.overhead || device.spill).forEach((device) => statuses.add(fitOf(device)));
  const says = { measured: "measured: timed on the device", interpolated: "interpolated between measured rows", transferred: "transferred from another device",
    estimated: "estimated: never timed on the device", fitted: "fitted to whole networks" };
  byId("status-legend").replaceChildren(...[...data.statuses, "fitted"].filter((name) => statuses.has(name)).map((name) =>
    el("span", {}, el("i", { class: `swatch ${name}-fill` }), says[name] || name)));
  byId("devices").replaceChildren(...devices.map(devicePart));
  byId("blocks-section").hidden = devices.length === 0;
}

/* Overhead and spill were fitted to whole networks on the device only where the table was measured there. */
const fitOf = (device) => ({ measured: "fitted", derived: "transferred" }[device.kind] || "estimated");

function devicePart(device, k) {
  const heading = el("div", { class: "heading" }, el("h3", {}, device.name), tag(device.kind || "estimated"));
  if (!device.rows) {
    const share = points[selected].shares[k];
    const known = typeof share === "number" ? ` ${percent(share)} of its latency comes from measured rows.` : "";
    return el("div", { class: "device" }, heading, el("p", { class: "note" }, `No split: ${device.note || "no latency table"}.${known}`));
  }
  const entries = data.members[selected].map((b) => {
    const [ms, sigma, status] = device.rows[b], [place, what, key] = data.blocks[b];
    return { ms, sigma, status: data.statuses[status], place, what, key };
  });
  if (device.overhead) entries.push({ ms: device.overhead, status: fitOf(device), place: "every run", what: "overhead, whatever the network" });
  if (device.spill && device.spill[selected]) entries.push({ ms: device.spill[selected], status: fitOf(device), place: "weights", what: "beyond the last-level cache" });
  const total = entries.reduce((sum, entry) => sum + entry.ms, 0);
  const largest = Math.max(...entries.map((entry) => entry.ms));
  const [unit, scale] = latencyUnit(total);
  const decimals = Math.max(0, 3 - Math.max(0, Math.floor(Math.log10(total * scale))));
  const shares = [...data.statuses, "fitted"].map((name) => [name, entries.filter((entry) => entry.status === name).reduce((sum, entry) => sum + entry.ms, 0) / total]).filter(([, share]) => share > 0);
  const bar = el("div", { class: "share", role: "img", "aria-label": shares.map(([name, share]) => `${name} ${percent(share)}`).join(", ") },
    shares.map(([name, share]) => sized(el("span", { class: `${name}-fill` }), 100 * share)));
  const text = el("p", { class: "legend" }, el("span", {}, el("b", {}, formatLatency(total))), shares.map(([name, share]) => el("span", { "data-status": name }, `${name} ${percent(share)}`)));
  return el("div", { class: "device", "data-device": device.name }, heading, bar, text, blockTable(entries, { total, largest, unit, scale, decimals }));
}
function sized(node, width) {
  node.style.width = `${width}%`;
  return node;
}

function blockTable(entries, { total, largest, unit, scale, decimals }) {
  const narrow = innerWidth <= 640;
  const stageOf = (entry) => entry.place.replace(/\.blocks\.\d+$/, "");
  const rows = entries.map((entry, i) => el("tr", { class: i && stageOf(entry) !== stageOf(entries[i - 1]) ? "first" : null, "data-status": entry.status,
    title: [entry.key, entry.status, entry.sigma ? `± ${(100 * entry.sigma).toFixed(0)} % alone` : ""].filter(Boolean).join("; ") },
    el("td", { class: "place" }, placeOf(entry.place, narrow)), el("td", { class: "what" }, entry.what),
    el("td", {}, sized(el("span", { class: `bar ${entry.status}-fill`, "aria-label": entry.status, role: "img" }), (100 * entry.ms) / largest)),
    el("td", { class: "n ms" }, `${(entry.ms * scale).toFixed(decimals)} ${unit}`), el("td", { class: "n part" }, `${((100 * entry.ms) / total).toFixed(1)} %`)));
  const head = el("tr", {}, el("th", { scope: "col" }, "block"), el("th", { scope: "col", class: "what" }, "kernel, channels, map"), el("th", { scope: "col" }, ""),
    el("th", { scope: "col", class: "n" }, narrow ? unit : "latency"), el("th", { scope: "col", class: "n part" }, "share"));
  return el("table", { class: "blocks" }, el("colgroup", {}, ["place", "what", "bars", "ms", "part"].map((name) => el("col", { class: name }))), el("thead", {}, head), el("tbody", {}, rows));
}
function placeOf(place, narrow) {
  const match = /^stages\.(\d+)\.blocks\.(\d+)$/.exec(place);
  if (!match) return place;
  return narrow ? `${match[1]}.${match[2]}` : `stage ${match[1]}, block ${match[2]}`;
}

// ---------------------------------------------------------------- what the space prefers

const strip = {};
function drawGenes() {
  const order = sortedPoints(), axis = axes[axisIndex];
  const width = widthOf("genes-chart"), narrow = width < 560;
  const left = narrow ? 64 : 92, right = width - (narrow ? 4 : 104), high = 15, gap = 2;
  const shown = genes.map((gene, k) => ({ ...gene, k })).filter((gene) => gene.choices.length > 1);
  const root = byId("genes");
  root.replaceChildren();
  const framed = isFramed(), nWidths = genes.filter((gene) => gene.field === "width").length;
  let top = 0, field = "";
  if (!narrow && shown.length) root.append(svg("text", { x: right + 10, y: 14 }, "choices"));
  const slot = (right - left) / order.length;
  strip.rows = [];
  for (const gene of shown) {
    if (gene.field !== field) {
      field = gene.field;
      top += field === shown[0].field ? 14 : 28;
      root.append(svg("text", { class: "name", x: 0, y: top }, GENE_TITLES[field] || field.replace("_", " ")));
      top += 6;
    }
    const values = order.map((i) => points[i].genes[gene.k]);
    const place = gene.index === null ? "" : !framed ? String(gene.index) : field === "width" ? placeName(gene.index, nWidths) : `stage ${gene.index}`;
    root.append(svg("text", { x: 0, y: top + 12 }, place));
    if (!narrow) root.append(svg("text", { x: right + 10, y: top + 12 }, choicesText(gene.choices)));
    drawRuns(root, values, gene.choices, { left, top, slot, high });
    strip.rows.push({ gene, top, place });
    top += high + gap;
  }
  const bottom = top + 2;
  Object.assign(strip, { left, right, slot, order, bottom, width });
  const { unit, scale, suffix } = scaleOf(axis);
  const smallest = points[order[0]].values[axisIndex] * scale;
  const decimals = smallest > 0 ? Math.max(0, 2 - Math.floor(Math.log10(smallest))) : 0;
  const marks = order.length === 1 ? [0] : [...new Set((narrow ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((share) => Math.round(share * (order.length - 1))))];
  marks.forEach((at, k) => {
    const text = `${(points[order[at]].values[axisIndex] * scale).toFixed(decimals)}${suffix}${unit && ` ${unit}`}`;
    const middle = left + (at + 0.5) * slot;
    root.append(svg("line", { class: "axis", x1: middle, x2: middle, y1: bottom, y2: bottom + 3 }),
      svg("text", { x: middle, y: bottom + 22, "text-anchor": order.length === 1 ? "middle" : k === 0 ? "start" : k === marks.length - 1 ? "end" : "middle" }, text));
  });
  root.append(svg("text", { class: "name", x: right, y: bottom + 40, "text-anchor": "end" }, `${axis.title}${axis.origin === "exact" ? "" : ` (${axis.origin})`}, ascending`));
  strip.marker = root.appendChild(svg("g", { "aria-hidden": "true" }));
  fill(root, { viewBox: `0 0 ${width} ${bottom + 46}`, role: "img", "aria-label": "The choice of each gene at every point of the front; the table at the end of the page has them as text" }, []);
  markStrip();
  const fixed = genes.length - shown.length;
  byId("genes-explain").textContent = `Every column is one point of the front, sorted by ${axis.title}; dark is large. A gene that darkens to the right is where the front spends its budget; one that stays pale is not worth it; one that flickers hardly matters.`
    + (fixed ? ` ${fixed} of ${genes.length} genes have a single choice and are left out.` : "");
  byId("genes-legend").replaceChildren(el("span", {}, swatch(HEAT[0]), "least choice"), el("span", {}, swatch(HEAT.at(-1)), "greatest"),
    el("span", {}, "marked: the selected point; click to select another"));
}
function swatch(colour) {
  const node = el("i", { class: "swatch" });
  node.style.background = colour;
  return node;
}
const choicesText = (choices) => (choices.length <= 3 || choices.join(" ").length < 14 ? choices.join(" ") : `${choices[0]} … ${choices.at(-1)}`);

function drawRuns(root, values, choices, { left, top, slot, high }) {
  for (let start = 0; start < values.length;) {
    let end = start + 1;
    while (end < values.length && values[end] === values[start]) end++;
    const rank = choices.indexOf(values[start]);
    const shade = Math.round((rank / Math.max(1, choices.length - 1)) * (HEAT.length - 1));
    const x = left + start * slot, width = (end - start) * slot, text = String(values[start]);
    root.append(svg("rect", { x: x.toFixed(2), y: top, width: (width + 0.2).toFixed(2), height: high, fill: HEAT[shade] }));
    if (width > text.length * 7 + 8) {
      const label = svg("text", { x: x + width / 2, y: top + 11.5, "text-anchor": "middle" }, text);
      label.style.fill = shade >= 3 ? "#fff" : "#1a2530";
      label.style.fontSize = "11px";
      root.append(label);
    }
    start = end;
  }
}
function markStrip() {
  const at = strip.order.indexOf(selected), first = strip.rows[0];
  strip.marker.replaceChildren();
  if (!first) return;
  const middle = strip.left + (at + 0.5) * strip.slot, top = first.top - 2;
  strip.marker.append(svg("path", { class: "mark", d: `M${middle},${top}l-5,-8h10zM${middle},${strip.bottom + 1}l-5,8h10z` }));
  if (strip.slot < 12) {  // wider columns are found by the triangles, and an outline would cross their numbers
    const width = Math.max(4, strip.slot) + 2;
    strip.marker.append(svg("rect", { class: "ring", x: middle - width / 2, y: top - 1, width, height: strip.bottom - top + 1, rx: 2 }));
  }
}
function listenToGenes() {
  const root = byId("genes"), tip = byId("genes-tip");
  const found = (event) => {
    const box = root.getBoundingClientRect(), unit = strip.width / box.width;
    const at = (event.clientX - box.left) * unit, up = (event.clientY - box.top) * unit;
    const column = Math.floor((at - strip.left) / strip.slot);
    return { point: strip.order[column], row: strip.rows.find((row) => up >= row.top && up < row.top + 17), x: event.clientX - box.left, y: event.clientY - box.top };
  };
  root.addEventListener("pointermove", (event) => {
    const { point, row, x, y } = found(event);
    tip.hidden = true;
    if (point === undefined || row === undefined) return;
    const axis = axes[axisIndex];
    showTip(tip, [el("p", {}, el("b", {}, `${GENE_TITLES[row.gene.field] || row.gene.field}${row.place ? `, ${row.place}` : ""}: ${points[point].genes[row.gene.k]}`)),
      el("p", {}, `choices: ${row.gene.choices.join(", ")}`),
      el("p", {}, `${formatAccuracy(points[point].accuracy)}, ${formatValue(axis, points[point].values[axisIndex])}`)], x, y, root.clientWidth || strip.width);
  });
  root.addEventListener("pointerleave", () => { tip.hidden = true; });
  root.addEventListener("click", (event) => {
    const { point } = found(event);
    if (point !== undefined) select(point);
  });
}

// ---------------------------------------------------------------- convergence, facts, table

function drawConvergence() {
  const course = data.convergence;
  if (!course) {
    byId("convergence-chart").hidden = true;
    byId("convergence-explain").textContent = "The search did not record its course.";
    return;
  }
  const final = course.hypervolume.at(-1) || 1;
  const shares = course.hypervolume.map((value) => (100 * value) / final);
  const counts = course.evaluations;
  const width = widthOf("convergence-chart"), height = 230;
  const left = 46, right = width - 24, top = 28, bottom = height - 42;
  const lowY = Math.min(...shares) > 99.99 ? 99 : Math.min(...shares) - 0.06 * (100 - Math.min(...shares)), highY = 100 + 0.06 * (100 - lowY);
  const highX = counts.at(-1);
  const x = (value) => left + (value / highX) * (right - left), y = (value) => bottom - ((value - lowY) / (highY - lowY)) * (bottom - top);
  const root = byId("convergence");
  root.replaceChildren();
  fill(root, { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Hypervolume over evaluations" }, []);
  const add = (name, attributes, ...children) => root.appendChild(svg(name, attributes, ...children));
  for (const value of ticks(0, highX, Math.max(2, Math.floor((right - left) / 100))).values) {
    add("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom });
    add("text", { x: x(value), y: bottom + 17, "text-anchor": "middle" }, value.toLocaleString("en"));
  }
  const inY = ticks(lowY, highY, 4);
  for (const value of inY.values) {
    add("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) });
    add("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(inY.decimals));
  }
  add("path", { class: "axis", fill: "none", d: `M${left},${top}V${bottom}H${right}` });
  add("text", { class: "name", x: 0, y: 14 }, "hypervolume, % of the last");
  add("text", { class: "name", x: right, y: height - 4, "text-anchor": "end" }, "accuracies evaluated");
  const line = add("path", { class: "stairs", d: counts.map((n, i) => `${i ? "L" : "M"}${x(n).toFixed(1)},${y(shares[i]).toFixed(1)}`).join("") });
  line.style.opacity = 1;
  line.style.strokeWidth = 2;
  const reached = (share) => counts[shares.findIndex((value) => value >= share)].toLocaleString("en");
  byId("convergence-explain").textContent = `99 % of the final hypervolume was reached after ${reached(99)} evaluations, 99.9 % after ${reached(99.9)}.`;
}

function drawFacts() {
  const list = (facts) => facts.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]);
  const groups = [];
  const group = (name, facts) => groups.push(el("div", {}, el("h3", {}, name), el("dl", { class: "facts" }, list(facts))));
  const { source, error, note, origin } = data.accuracy;
  group("accuracy", [["source", el("span", {}, `${source} `, tag(origin))], ["error", `± ${Number(error).toFixed(2)} points`], ["meaning", note || "not stated"]]);
  devices.forEach((device) => group(device.name, device.facts || [["table", device.kind], ["note", device.note]]));
  byId("facts").replaceChildren(...groups);
  byId("search-facts").replaceChildren(...list(data.facts));
}

function drawTable() {
  const header = el("tr", {}, el("th", { scope: "col" }, "id"), el("th", { scope: "col", class: "n" }, "top-1, %"), axes.map((axis) => el("th", { scope: "col", class: "n" }, axis.title, axis.origin === "exact" ? "" : ` (${axis.origin})`)), el("th", { scope: "col" }, "configuration"));
  const rows = points.map((point, i) => el("tr", { "data-row": i, onclick: () => select(i) }, el("td", { class: "mono" }, point.id, i === data.best ? " " : null, i === data.best ? tag("chosen") : null), el("td", { class: "n" }, point.accuracy.toFixed(2)),
    axes.map((axis, k) => el("td", { class: "n" }, formatValue(axis, point.values[k], point.sigmas[k]))), el("td", { class: "mono" }, summaryLines(i).join(" "))));
  byId("table").replaceChildren(el("table", {}, el("thead", {}, header), el("tbody", {}, rows)));
  markRow();
}
function markRow() {
  byId("table").querySelectorAll("tr.selected").forEach((row) => row.classList.remove("selected"));
  byId("table").querySelector(`tr[data-row="${selected}"]`)?.classList.add("selected");
}

// ---------------------------------------------------------------- together

function select(i, focus) {
  selected = i;
  markSelected();
  if (focus) front.circles[i].focus({ preventScroll: true });
  markStrip();
  drawSelected();
  drawNext();
  drawBlocks();
  markRow();
  try { history.replaceState(null, "", `#point=${points[i].id}`); } catch { /* some browsers refuse for files */ }
}
function drawSwitch() {
  byId("axes").replaceChildren(...(axes.length < 2 ? [] : axes.map((axis, k) => el("button", { type: "button", "aria-pressed": k === axisIndex, onclick: () => {
    axisIndex = k;
    drawSwitch();
    drawFront();
    drawGenes();
    byId("axes").children[k].focus();
  } }, axis.device && axis.metric === "latency_ms" ? axis.device : axis.title))));
}
function fromFragment() {
  const match = /^#point=(.+)$/.exec(location.hash);
  if (!match) return -1;
  const named = points.findIndex((point) => point.id === match[1]);
  return named >= 0 ? named : /^\d+$/.test(match[1]) && Number(match[1]) < points.length ? Number(match[1]) : -1;
}
function draw() {
  drawFront();
  drawGenes();
  drawConvergence();
  drawBlocks();
}

selected = fromFragment() >= 0 ? fromFragment() : data.best;
drawSwitch();
draw();
drawSelected();
drawNext();
drawFacts();
listenToFront();
listenToGenes();
byId("all").addEventListener("toggle", () => { if (byId("all").open && !byId("table").childNodes.length) drawTable(); });
addEventListener("hashchange", () => { if (fromFragment() >= 0) select(fromFragment()); });
addEventListener("beforeprint", () => { forcedWidth = PRINT_WIDTH; draw(); });
addEventListener("afterprint", () => { forcedWidth = 0; draw(); });
let lastWidth = innerWidth;
addEventListener("resize", () => { if (innerWidth !== lastWidth) { lastWidth = innerWidth; draw(); } });
})();
