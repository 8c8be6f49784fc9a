// What the space prefers: one row a gene, one column a point.

const strip = {};
function drawGenes() {
  const order = sortedPoints(),
    axis = axes[axisIndex];
  const width = widthOf("genes-chart"),
    narrow = width < 560;
  const left = narrow ? 64 : 92,
    right = width - (narrow ? 4 : 104),
    high = 15,
    gap = 2;
  const shown = genes.map((gene, k) => ({ ...gene, k })).filter((gene) => gene.choices.length > 1);
  const root = byId("genes");
  root.replaceChildren();
  const framed = isFramed(),
    nWidths = genes.filter((gene) => gene.field === "width").length;
  let top = 0,
    field = "";
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
    const place =
      gene.index === null
        ? ""
        : !framed
          ? String(gene.index)
          : field === "width"
            ? placeName(gene.index, nWidths)
            : `stage ${gene.index}`;
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
  const marks =
    order.length === 1
      ? [0]
      : [
          ...new Set(
            (narrow ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((share) => Math.round(share * (order.length - 1))),
          ),
        ];
  marks.forEach((at, k) => {
    const text = `${(points[order[at]].values[axisIndex] * scale).toFixed(decimals)}${suffix}${unit && ` ${unit}`}`;
    const middle = left + (at + 0.5) * slot;
    root.append(
      svg("line", { class: "axis", x1: middle, x2: middle, y1: bottom, y2: bottom + 3 }),
      svg(
        "text",
        {
          x: middle,
          y: bottom + 22,
          "text-anchor": order.length === 1 ? "middle" : k === 0 ? "start" : k === marks.length - 1 ? "end" : "middle",
        },
        text,
      ),
    );
  });
  root.append(
    svg(
      "text",
      { class: "name", x: right, y: bottom + 40, "text-anchor": "end" },
      `${axis.title}${axis.origin === "exact" ? "" : ` (${axis.origin})`}, ascending`,
    ),
  );
  strip.marker = root.appendChild(svg("g", { "aria-hidden": "true" }));
  fill(
    root,
    {
      viewBox: `0 0 ${width} ${bottom + 46}`,
      role: "img",
      "aria-label":
        "The choice of each gene at every point of the front; the table at the end of the page has them as text",
    },
    [],
  );
  markStrip();
  const fixed = genes.length - shown.length;
  byId("genes-explain").textContent =
    `Every column is one point of the front, sorted by ${axis.title}; dark is large. A gene that darkens to the right is where the front spends its budget; one that stays pale is not worth it; one that flickers hardly matters.` +
    (fixed ? ` ${fixed} of ${genes.length} genes have a single choice and are left out.` : "");
  byId("genes-legend").replaceChildren(
    el("span", {}, swatch(HEAT[0]), "least choice"),
    el("span", {}, swatch(HEAT.at(-1)), "greatest"),
    el("span", {}, "marked: the selected point; click to select another"),
  );
}
function swatch(colour) {
  const node = el("i", { class: "swatch" });
  node.style.background = colour;
  return node;
}
const choicesText = (choices) =>
  choices.length <= 3 || choices.join(" ").length < 14 ? choices.join(" ") : `${choices[0]} … ${choices.at(-1)}`;

function drawRuns(root, values, choices, { left, top, slot, high }) {
  for (let start = 0; start < values.length;) {
    let end = start + 1;
    while (end < values.length && values[end] === values[start]) end++;
    const rank = choices.indexOf(values[start]);
    const shade = Math.round((rank / Math.max(1, choices.length - 1)) * (HEAT.length - 1));
    const x = left + start * slot,
      width = (end - start) * slot,
      text = String(values[start]);
    root.append(
      svg("rect", { x: x.toFixed(2), y: top, width: (width + 0.2).toFixed(2), height: high, fill: HEAT[shade] }),
    );
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
  const at = strip.order.indexOf(selected),
    first = strip.rows[0];
  strip.marker.replaceChildren();
  if (!first) return;
  const middle = strip.left + (at + 0.5) * strip.slot,
    top = first.top - 2;
  strip.marker.append(
    svg("path", { class: "mark", d: `M${middle},${top}l-5,-8h10zM${middle},${strip.bottom + 1}l-5,8h10z` }),
  );
  if (strip.slot < 12) {
    // wider columns are found by the triangles, and an outline would cross their numbers
    const width = Math.max(4, strip.slot) + 2;
    strip.marker.append(
      svg("rect", { class: "ring", x: middle - width / 2, y: top - 1, width, height: strip.bottom - top + 1, rx: 2 }),
    );
  }
}
function listenToGenes() {
  const root = byId("genes"),
    tip = byId("genes-tip");
  const found = (event) => {
    const box = root.getBoundingClientRect(),
      unit = strip.width / box.width;
    const at = (event.clientX - box.left) * unit,
      up = (event.clientY - box.top) * unit;
    const column = Math.floor((at - strip.left) / strip.slot);
    return {
      point: strip.order[column],
      row: strip.rows.find((row) => up >= row.top && up < row.top + 17),
      x: event.clientX - box.left,
      y: event.clientY - box.top,
    };
  };
  root.addEventListener("pointermove", (event) => {
    const { point, row, x, y } = found(event);
    tip.hidden = true;
    if (point === undefined || row === undefined) return;
    const axis = axes[axisIndex];
    showTip(
      tip,
      [
        el(
          "p",
          {},
          el(
            "b",
            {},
            `${GENE_TITLES[row.gene.field] || row.gene.field}${row.place ? `, ${row.place}` : ""}: ${points[point].genes[row.gene.k]}`,
          ),
        ),
        el("p", {}, `choices: ${row.gene.choices.join(", ")}`),
        el("p", {}, `${formatAccuracy(points[point])}, ${formatValue(axis, points[point].values[axisIndex])}`),
      ],
      x,
      y,
      root.clientWidth || strip.width,
    );
  });
  root.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  root.addEventListener("click", (event) => {
    const { point } = found(event);
    if (point !== undefined) select(point);
  });
}
