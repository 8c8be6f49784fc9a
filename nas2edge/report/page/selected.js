// The selected sub-network: figures, configuration, file, and the command to go on.

function drawSelected() {
  const point = points[selected],
    best = points[data.best];
  const back = el(
    "button",
    { type: "button", class: "small", id: "to-best", onclick: () => select(data.best) },
    choiceOf.size > 1 ? "back to the first choice" : "back to the chosen one",
  );
  byId("selected-id").replaceChildren(
    el("span", { class: "mono" }, point.id),
    ...(isChosen(selected) ? [tag("chosen")] : []),
    ...(selected === data.best ? [] : [back]),
    ...(choiceOf.size > 1 && isChosen(selected)
      ? [el("p", { class: "explain", id: "chosen-for" }, `chosen for ${choiceOf.get(selected).limits.join(" and ")}`)]
      : []),
  );
  const rows = [];
  const row = (name, text, origin, difference) =>
    rows.push(
      el("dt", {}, name, " ", origin && origin !== "exact" ? tag(origin) : null),
      el("dd", {}, el("b", {}, text), difference ? el("span", { class: "delta" }, `${difference} vs. ${choiceOf.size > 1 ? "the first choice" : "chosen"}`) : null),
    );
  const moved = point.accuracy - best.accuracy;
  row(
    "top-1 accuracy",
    formatAccuracy(point),
    point.origin,
    selected === data.best ? "" : signed(moved, `${Math.abs(moved).toFixed(2)} points`),
  );
  if (point.measured !== null) row("evaluated by the supernet", formatMeasured(point), "measured", "");
  axes.forEach((axis, k) => {
    const change = point.values[k] - best.values[k];
    const difference =
      selected === data.best || !best.values[k]
        ? ""
        : signed(change, `${(Math.abs(change / best.values[k]) * 100).toFixed(1)} %`);
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
    rows.push(
      el(
        "tr",
        {},
        el("th", { scope: "row" }, framed ? placeName(i, n) : String(i)),
        cells.map((text) => el("td", { class: "n" }, text)),
      ),
    );
  }
  const scalars = fields
    .filter((field) => !lists.includes(field))
    .map((field) => `${field.replace("_", " ")} ${valueOf(field, null)}`);
  const heads = { kernel_size: "kernel", expand_ratio: "expansion" };
  return el(
    "table",
    {},
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, scalars.join(", ")),
        lists.map((field) => el("th", { scope: "col", class: "n" }, heads[field] || field)),
      ),
    ),
    el("tbody", {}, rows),
  );
}
/* Widths count stem and head beside the stages; the other fields only the stages. */
function isFramed() {
  const count = (field) => genes.filter((gene) => gene.field === field && gene.index !== null).length;
  return count("width") === count("depth") + 2 && count("depth") > 0;
}
const placeName = (i, n) => (i === 0 ? "stem" : i === n - 1 ? "head" : `stage ${i - 1}`);

function subnetFile(i) {
  const point = points[i],
    subnet = {},
    predicted = {};
  genes.forEach((gene, k) => {
    if (gene.index === null) subnet[gene.field] = point.genes[k];
    else (subnet[gene.field] = subnet[gene.field] || []).push(point.genes[k]);
  });
  Object.assign(predicted, {
    accuracy: point.accuracy,
    accuracy_source: point.source || data.accuracy.source,
    accuracy_error: point.error,
    ...(point.measured === null ? {} : { measured_accuracy: point.measured[0] }),
  });
  axes.forEach((axis, k) => {
    const suffix = axis.device === null || axis.device === data.subnet_file.device ? "" : `:${axis.device}`;
    predicted[axis.metric + suffix] = point.values[k];
    if (axis.metric !== "latency_ms") return;
    predicted[`latency_sigma_ms${suffix}`] = point.sigmas[k];
    predicted[`latency_kind${suffix}`] = axis.origin;
    predicted[`measured_share${suffix}`] = point.shares[devices.findIndex((device) => device.name === axis.device)];
  });
  return {
    format: "nas2edge.subnet",
    version: 1,
    id: point.id,
    space: data.space.raw,
    subnet,
    ...data.subnet_file,
    predicted,
  };
}

function drawNext() {
  const chosen = isChosen(selected) && choiceOf.get(selected).file;
  const file = chosen || `subnet-${points[selected].id}.json`;
  const quoted = /^[\w@%+=:,./-]+$/.test(file) ? file : `'${file.replaceAll("'", `'"'"'`)}'`;
  const weights = data.export.weights ? "" : " --supernet RUN";
  const parts = [];
  const save = () => {
    const text = JSON.stringify(subnetFile(selected), null, 2) + "\n";
    const link = el("a", {
      href: `data:application/json;charset=utf-8,${encodeURIComponent(text)}`,
      download: `subnet-${points[selected].id}.json`,
    });
    document.body.append(link);
    link.click();
    link.remove();
  };
  if (chosen)
    parts.push(
      el(
        "p",
        { class: "explain" },
        "The search wrote the chosen sub-network; export it with proof that nothing changed:",
      ),
    );
  else
    parts.push(
      el(
        "p",
        { class: "explain" },
        "This one is not the chosen one. Save it, then export it: ",
        el("button", { type: "button", class: "copy", onclick: save }, `save subnet-${points[selected].id}.json`),
      ),
    );
  parts.push(commandLine(`nas2edge export ${quoted} --to onnx${weights}`));
  if (weights)
    parts.push(
      el(
        "p",
        { class: "explain" },
        "RUN is a supernet of this space: the search used no weights, so its accuracies are not of any weights of yours.",
      ),
    );
  if (data.export.command)
    parts.push(
      el("p", { class: "explain" }, "To search again with the same result:"),
      commandLine(data.export.command),
    );
  byId("next").replaceChildren(...parts);
}
function commandLine(text) {
  const code = el(
    "code",
    {},
    text.split(" ").flatMap((word, i) => [i ? " " : "", el("span", {}, word)]),
  );
  const button = el(
    "button",
    {
      type: "button",
      class: "copy",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text);
        } catch {
          getSelection().selectAllChildren(code);
          document.execCommand("copy");
        }
        button.textContent = "copied";
        setTimeout(() => {
          button.textContent = "copy";
        }, 1500);
      },
    },
    "copy",
  );
  return el("div", { class: "command" }, code, button);
}
