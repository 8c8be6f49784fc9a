// Convergence, what the figures stand on, and all points as a table.

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
  const width = widthOf("convergence-chart"),
    height = 230;
  const left = 46,
    right = width - 24,
    top = 28,
    bottom = height - 42;
  const lowY = Math.min(...shares) > 99.99 ? 99 : Math.min(...shares) - 0.06 * (100 - Math.min(...shares)),
    highY = 100 + 0.06 * (100 - lowY);
  const highX = counts.at(-1);
  const x = (value) => left + (value / highX) * (right - left),
    y = (value) => bottom - ((value - lowY) / (highY - lowY)) * (bottom - top);
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
  const line = add("path", {
    class: "stairs",
    d: counts.map((n, i) => `${i ? "L" : "M"}${x(n).toFixed(1)},${y(shares[i]).toFixed(1)}`).join(""),
  });
  line.style.opacity = 1;
  line.style.strokeWidth = 2;
  const reached = (share) => counts[shares.findIndex((value) => value >= share)].toLocaleString("en");
  byId("convergence-explain").textContent =
    `99 % of the final hypervolume was reached after ${reached(99)} evaluations, 99.9 % after ${reached(99.9)}.`;
}

function drawFacts() {
  const list = (facts) => facts.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]);
  const groups = [];
  const group = (name, facts) =>
    groups.push(el("div", {}, el("h3", {}, name), el("dl", { class: "facts" }, list(facts))));
  const { source, error, note, origin } = data.accuracy;
  group("accuracy", [
    ["source", el("span", {}, `${source} `, tag(origin))],
    ["error", `± ${Number(error).toFixed(2)} points`],
    ["meaning", note || "not stated"],
  ]);
  devices.forEach((device) =>
    group(
      device.name,
      device.facts || [
        ["table", device.kind],
        ["note", device.note],
      ],
    ),
  );
  byId("facts").replaceChildren(...groups);
  byId("search-facts").replaceChildren(...list(data.facts));
}

function drawTable() {
  const header = el(
    "tr",
    {},
    el("th", { scope: "col" }, "id"),
    el("th", { scope: "col", class: "n" }, "top-1, %"),
    evaluated ? el("th", { scope: "col", class: "n" }, "top-1 by the supernet, %") : null,
    axes.map((axis) =>
      el("th", { scope: "col", class: "n" }, axis.title, axis.origin === "exact" ? "" : ` (${axis.origin})`),
    ),
    el("th", { scope: "col" }, "configuration"),
  );
  const rows = points.map((point, i) =>
    el(
      "tr",
      { "data-row": i, onclick: () => select(i) },
      el("td", { class: "mono" }, point.id, isChosen(i) ? " " : null, isChosen(i) ? tag("chosen") : null),
      el("td", { class: "n" }, point.accuracy.toFixed(2)),
      evaluated ? el("td", { class: "n" }, point.measured === null ? "" : point.measured[0].toFixed(2)) : null,
      axes.map((axis, k) => el("td", { class: "n" }, formatValue(axis, point.values[k], point.sigmas[k]))),
      el("td", { class: "mono" }, summaryLines(i).join(" ")),
    ),
  );
  byId("table").replaceChildren(el("table", {}, el("thead", {}, header), el("tbody", {}, rows)));
  markRow();
}
function markRow() {
  byId("table")
    .querySelectorAll("tr.selected")
    .forEach((row) => row.classList.remove("selected"));
  byId("table").querySelector(`tr[data-row="${selected}"]`)?.classList.add("selected");
}
