// Data, elements and numbers that all parts share.

const data = JSON.parse(document.getElementById("data").textContent);
const { axes, points, genes, devices } = data;
const byId = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;
const HEAT = ["#dfeaf4", "#bdd5ea", "#8fb8da", "#5a94c4", "#2c6ea6", "#0f4474"];
const GENE_TITLES = {
  resolution: "resolution, pixels",
  width: "width, channels",
  depth: "depth, blocks",
  kernel_size: "kernel size",
  expand_ratio: "expansion ratio",
};
const PRINT_WIDTH = 690;
const choiceOf = new Map(data.choices.map((choice) => [choice.point, choice]).reverse()); // the first of several wins
const isChosen = (i) => choiceOf.has(i);
let axisIndex = 0;
let selected = data.best;
let forcedWidth = 0; // of charts while the page prints
const widthOf = (id) => forcedWidth || Math.max(280, byId(id).clientWidth);

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
  for (const [unit, scale] of [
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ]) {
    if (Math.abs(rounded) >= scale) return String(Number((rounded / scale).toPrecision(4))) + unit;
  }
  return String(rounded);
}
function latencyUnit(ms) {
  return Math.abs(Number(ms.toPrecision(3))) >= 1000
    ? ["s", 1e-3]
    : Math.abs(Number(ms.toPrecision(3))) >= 1
      ? ["ms", 1]
      : ["µs", 1e3];
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
const formatAccuracy = (point) =>
  `${point.accuracy.toFixed(2)}${point.error === null ? "" : ` ± ${point.error.toFixed(2)}`} %`;
const evaluated = points.some((point) => point.measured !== null); // by the supernet, beside a prediction
const formatMeasured = ({ measured }) =>
  measured === null ? "" : `${measured[0].toFixed(2)}${measured[1] === null ? "" : ` ± ${measured[1].toFixed(2)}`} %`;
const origins = [...new Set(points.map((point) => point.origin))];
const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${(100 * share).toFixed(0)} %`);
const signed = (value, text) => (value < 0 ? "−" : "+") + text;

function ticks(low, high, most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (/^2\.5/.test(String(step / power)) ? 1 : 0));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step || 0); // not -0
  return { values: found, decimals };
}
function extent(values) {
  const low = Math.min(...values),
    high = Math.max(...values);
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.05 || 1;
  return [low - pad, high + pad];
}
