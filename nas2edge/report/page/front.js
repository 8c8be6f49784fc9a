// The front: points, limit, errors; hover, click and arrow keys select.

const front = {};
function scaleOf(axis) {
  if (axis.unit === "ms") {
    const largest = Math.max(...points.map((point) => point.values[axisIndex]));
    const [unit, scale] = latencyUnit(largest);
    return { unit, scale, suffix: "" };
  }
  const largest = Math.max(...points.map((point) => point.values[axisIndex]));
  const [suffix, scale] =
    largest >= 1e9 ? ["G", 1e-9] : largest >= 1e6 ? ["M", 1e-6] : largest >= 1e4 ? ["k", 1e-3] : ["", 1];
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
  const left = 46,
    right = width - 14,
    top = 30,
    bottom = height - 42;
  const values = points.map((point) => point.values[axisIndex]);
  let [lowX, highX] = extent(values);
  let [lowY, highY] = extent(points.map((point) => point.accuracy));
  const loosest = axis.limits.at(-1);
  const near = axis.limits.filter(([limit]) => limit <= highX + 0.6 * (highX - lowX));
  if (near.length) highX = Math.max(highX, near.at(-1)[0] + 0.04 * (highX - lowX));
  const clouds = data.dominated && data.dominated.values[axisIndex] ? data.dominated.values[axisIndex] : [];
  if (clouds.length) {
    lowY -= 0.35 * (highY - lowY);
    highX += 0.1 * (highX - lowX);
  }
  lowX = Math.max(0, lowX);
  const x = (value) => left + ((value - lowX) / (highX - lowX)) * (right - left);
  const y = (value) => bottom - ((value - lowY) / (highY - lowY)) * (bottom - top);

  const root = byId("front");
  root.replaceChildren();
  fill(
    root,
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "listbox",
      "aria-label": `The front: accuracy against ${axisTitle(axis)}; arrow keys select`,
    },
    [],
  );
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
  add(
    "text",
    { class: "name", x: 0, y: 14 },
    `top-1 accuracy, % (${origins.length > 1 ? "measured or estimated" : `${origins[0]}: ${data.accuracy.source}`})`,
  );
  add("text", { class: "name", x: right, y: height - 4, "text-anchor": "end" }, axisTitle(axis));

  near.forEach(([limit, text], k) => {
    const at = x(limit);
    if (limit === loosest[0])
      add("rect", { class: "beyond", x: at, y: top, width: Math.max(0, right - at), height: bottom - top });
    add("line", { class: "limit", x1: at, x2: at, y1: top, y2: bottom });
    const inside = at - left > 110;
    add(
      "text",
      {
        class: "limit-text halo",
        x: at + (inside ? -6 : 6),
        y: bottom - 8 - 15 * (near.length - 1 - k),
        "text-anchor": inside ? "end" : "start",
      },
      `limit ${text}`,
    );
  });
  if (loosest && !near.length) {
    add(
      "text",
      { class: "limit-text halo", x: right - 2, y: bottom - 8, "text-anchor": "end" },
      `limit ${axis.limits[0][1]}, farther right →`,
    );
  }

  const cloud = svg("g", { "aria-hidden": "true" });
  clouds.forEach((value, i) => {
    const at = data.dominated.accuracy[i];
    if (value >= lowX && value <= highX && at >= lowY && at <= highY)
      cloud.append(svg("circle", { class: "dominated", cx: x(value).toFixed(1), cy: y(at).toFixed(1), r: 2 }));
  });
  root.append(cloud);
  const order = sortedPoints();
  if (axis.staircase && order.length > 1) {
    const steps = order.map(
      (i, k) => `${k ? "H" : "M"}${x(values[i]).toFixed(1)}${k ? "V" : ","}${y(points[i].accuracy).toFixed(1)}`,
    );
    add("path", { class: "stairs", d: steps.join("") });
  }
  root.classList.toggle("dense", points.length > 150);
  front.marks = add("g", { "aria-hidden": "true" });
  const radius = points.length > 150 ? 3.5 : points.length > 40 ? 4.5 : 6;
  front.circles = [];
  for (const i of [...order.filter((k) => !isChosen(k)), ...choiceOf.keys()]) {
    const point = points[i];
    const label = `${formatAccuracy(point)}, ${formatValue(axis, values[i], point.sigmas[axisIndex])}${isChosen(i) ? ", chosen" : ""}`;
    front.circles[i] = add("circle", {
      class: markOf(point, i),
      "data-point": i,
      cx: x(values[i]).toFixed(1),
      cy: y(point.accuracy).toFixed(1),
      r: isChosen(i) ? radius + 1.5 : radius,
      role: "option",
      "aria-label": label,
      tabindex: -1,
    });
  }
  front.hover = add("g", { "aria-hidden": "true" });
  Object.assign(front, { x, y, radius, order, left, right, top, bottom, width });
  drawFrontLegend(axis, clouds.length);
  markSelected();
}

/* Where a front mixes measured and estimated accuracies, the estimated ones are hollow; where all are predicted, those
   that the supernet did not evaluate too. */
const isHollow = (point) => (origins.length > 1 ? point.origin === "estimated" : evaluated && point.measured === null);
const markOf = (point, i) => ["point", isChosen(i) && "best", isHollow(point) && "hollow"].filter(Boolean).join(" ");

function drawFrontLegend(axis, nClouds) {
  const dot = (kind, r) =>
    el(
      "span",
      { "aria-hidden": "true" },
      svg("svg", { viewBox: "0 0 22 12" }, svg("circle", { class: kind, cx: 11, cy: 6, r })),
    );
  const items = [
    el(
      "span",
      {},
      dot("point", 4),
      origins.length > 1
        ? "accuracy measured"
        : evaluated
          ? "predicted, and evaluated by the supernet too"
          : points.length < data.total
          ? `on the front: ${points.length} of ${data.total.toLocaleString("en")}, evenly`
          : "on the front",
    ),
  ];
  items.push(
    el("span", {}, dot("point best", 5), choiceOf.size > 1 ? "chosen, one for each limit" : "chosen"),
    el("span", {}, dot("ring", 5), "selected, with one-sigma errors"),
  );
  if (origins.length > 1) items.splice(1, 0, el("span", {}, dot("point hollow", 4), "accuracy estimated"));
  else if (evaluated) items.splice(1, 0, el("span", {}, dot("point hollow", 4), "predicted alone"));
  if (nClouds)
    items.push(
      el("span", {}, dot("dominated", 3), `dominated (a sample of ${data.dominated.total.toLocaleString("en")})`),
    );
  if (!axis.staircase && points.length > 1)
    items.push(el("span", {}, "Points that look dominated here are better in another respect."));
  byId("front-legend").replaceChildren(...items);
}

function sortedPoints() {
  return points
    .map((_, i) => i)
    .sort(
      (a, b) => points[a].values[axisIndex] - points[b].values[axisIndex] || points[a].accuracy - points[b].accuracy,
    );
}

function markSelected() {
  const { x, y, radius, marks, circles } = front;
  const point = points[selected],
    value = point.values[axisIndex],
    sigma = point.sigmas[axisIndex];
  const at = x(value),
    up = y(point.accuracy);
  const clampX = (v) => Math.min(front.right, Math.max(front.left, v)),
    clampY = (v) => Math.min(front.bottom, Math.max(front.top, v));
  const error = point.error || 0;
  marks.replaceChildren();
  const line = (x1, x2, y1, y2) => marks.append(svg("line", { class: "error", x1, x2, y1, y2 }));
  for (const side of sigma ? [-1, 1] : []) {
    // an end that lies outside the chart has no cap
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
  const at = (event.clientX - box.left) * unit,
    up = (event.clientY - box.top) * unit;
  let best = -1,
    least = 26 ** 2;
  points.forEach((point, i) => {
    const d = (front.x(point.values[axisIndex]) - at) ** 2 + (front.y(point.accuracy) - up) ** 2;
    if (d < least) {
      best = i;
      least = d;
    }
  });
  return best;
}

function tipLines(i) {
  const point = points[i];
  const lines = [
    el(
      "p",
      {},
      el("b", {}, formatAccuracy(point)),
      " ",
      tag(point.origin),
      isChosen(i) ? " " : null,
      isChosen(i) ? tag("chosen") : null,
    ),
  ];
  if (point.measured !== null) lines.push(el("p", {}, `${formatMeasured(point)} by the supernet `, tag("measured")));
  axes.forEach((axis, k) => {
    const name = axis.device ? `${axis.device}${axis.metric === "latency_ms" ? "" : ` ${axis.title}`}` : axis.title;
    lines.push(
      el(
        "p",
        {},
        `${formatValue(axis, point.values[k], point.sigmas[k])} `,
        axis.device ? "on " : "",
        name,
        " ",
        axis.origin === "exact" ? null : tag(axis.origin),
      ),
    );
  });
  lines.push(
    el(
      "div",
      { class: "mono" },
      summaryLines(i).map((text) => el("p", {}, text)),
    ),
  );
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
  const root = byId("front"),
    tip = byId("tip");
  const hide = () => {
    tip.hidden = true;
    front.hover.querySelector(".hover")?.remove();
  };
  root.addEventListener("pointermove", (event) => {
    const i = nearest(event);
    hide();
    if (i < 0) return;
    const at = front.x(points[i].values[axisIndex]),
      up = front.y(points[i].accuracy);
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
    const order = front.order,
      at = order.indexOf(selected);
    const to = {
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      Home: 0,
      End: order.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(order[Math.max(0, Math.min(order.length - 1, to))], true);
  });
}
