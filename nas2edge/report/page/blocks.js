// Where the milliseconds go: one table of blocks a device.

function drawBlocks() {
  const rowed = devices.filter((device) => device.rows);
  const statuses = new Set(rowed.flatMap((device) => device.rows.map((row) => data.statuses[row[2]])));
  rowed.filter((device) => Object.keys(device.beyond).length).forEach((device) => statuses.add(fitOf(device)));
  const says = {
    measured: "measured: timed on the device",
    interpolated: "interpolated between measured rows",
    transferred: "transferred from another device",
    estimated: "estimated: never timed on the device",
    fitted: "fitted to whole networks",
  };
  byId("status-legend").replaceChildren(
    ...[...data.statuses, "fitted"]
      .filter((name) => statuses.has(name))
      .map((name) => el("span", {}, el("i", { class: `swatch ${name}-fill` }), says[name] || name)),
  );
  byId("devices").replaceChildren(...devices.map(devicePart));
  byId("blocks-section").hidden = devices.length === 0;
}

/* What networks cost beyond their blocks, by the names of the parts of their latency. */
const BEYOND = {
  overhead: ["every run", "overhead, whatever the network"],
  weights: ["weights", "beyond the last-level cache"],
  launches: ["kernels", "code out of the nearest cache"],
};
/* These were fitted to whole networks on the device only where the table was measured there. */
const fitOf = (device) => ({ measured: "fitted", derived: "transferred" })[device.kind] || "estimated";

function devicePart(device, k) {
  const heading = el("div", { class: "heading" }, el("h3", {}, device.name), tag(device.kind || "estimated"));
  if (!device.rows) {
    const share = points[selected].shares[k];
    const known = typeof share === "number" ? ` ${percent(share)} of its latency comes from measured rows.` : "";
    return el(
      "div",
      { class: "device" },
      heading,
      el("p", { class: "note" }, `No split: ${device.note || "no latency table"}.${known}`),
    );
  }
  const entries = data.members[selected].map((b) => {
    const [ms, sigma, status] = device.rows[b],
      [place, what, key] = data.blocks[b];
    return { ms: ms * device.slopes[selected], sigma, status: data.statuses[status], place, what, key };
  });
  for (const [name, times] of Object.entries(device.beyond)) {
    const [place, what] = BEYOND[name];
    if (times[selected]) entries.push({ ms: times[selected], status: fitOf(device), place, what });
  }
  const total = entries.reduce((sum, entry) => sum + entry.ms, 0);
  const largest = Math.max(...entries.map((entry) => entry.ms));
  const [unit, scale] = latencyUnit(total);
  const decimals = Math.max(0, 3 - Math.max(0, Math.floor(Math.log10(total * scale))));
  const shares = [...data.statuses, "fitted"]
    .map((name) => [
      name,
      entries.filter((entry) => entry.status === name).reduce((sum, entry) => sum + entry.ms, 0) / total,
    ])
    .filter(([, share]) => share > 0);
  const bar = el(
    "div",
    {
      class: "share",
      role: "img",
      "aria-label": shares.map(([name, share]) => `${name} ${percent(share)}`).join(", "),
    },
    shares.map(([name, share]) => sized(el("span", { class: `${name}-fill` }), 100 * share)),
  );
  const text = el(
    "p",
    { class: "legend" },
    el("span", {}, el("b", {}, formatLatency(total))),
    shares.map(([name, share]) => el("span", { "data-status": name }, `${name} ${percent(share)}`)),
  );
  return el(
    "div",
    { class: "device", "data-device": device.name },
    heading,
    bar,
    text,
    blockTable(entries, { total, largest, unit, scale, decimals }),
  );
}
function sized(node, width) {
  node.style.width = `${width}%`;
  return node;
}

function blockTable(entries, { total, largest, unit, scale, decimals }) {
  const narrow = innerWidth <= 640;
  const stageOf = (entry) => entry.place.replace(/\.blocks\.\d+$/, "");
  const rows = entries.map((entry, i) =>
    el(
      "tr",
      {
        class: i && stageOf(entry) !== stageOf(entries[i - 1]) ? "first" : null,
        "data-status": entry.status,
        title: [entry.key, entry.status, entry.sigma ? `± ${(100 * entry.sigma).toFixed(0)} % alone` : ""]
          .filter(Boolean)
          .join("; "),
      },
      el("td", { class: "place" }, placeOf(entry.place, narrow)),
      el("td", { class: "what" }, entry.what),
      el(
        "td",
        {},
        sized(
          el("span", { class: `bar ${entry.status}-fill`, "aria-label": entry.status, role: "img" }),
          (100 * entry.ms) / largest,
        ),
      ),
      el("td", { class: "n ms" }, `${(entry.ms * scale).toFixed(decimals)} ${unit}`),
      el("td", { class: "n part" }, `${((100 * entry.ms) / total).toFixed(1)} %`),
    ),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "block"),
    el("th", { scope: "col", class: "what" }, "kernel, channels, map"),
    el("th", { scope: "col" }, ""),
    el("th", { scope: "col", class: "n" }, narrow ? unit : "latency"),
    el("th", { scope: "col", class: "n part" }, "share"),
  );
  return el(
    "table",
    { class: "blocks" },
    el(
      "colgroup",
      {},
      ["place", "what", "bars", "ms", "part"].map((name) => el("col", { class: name })),
    ),
    el("thead", {}, head),
    el("tbody", {}, rows),
  );
}
function placeOf(place, narrow) {
  const match = /^stages\.(\d+)\.blocks\.(\d+)$/.exec(place);
  if (!match) return place;
  return narrow ? `${match[1]}.${match[2]}` : `stage ${match[1]}, block ${match[2]}`;
}
