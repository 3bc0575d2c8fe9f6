// Text beside the picture: the prediction and the point in focus. Text is set as such, never as HTML.
const byId = (id) => document.getElementById(id);
const TOUCH = matchMedia("(pointer: coarse)").matches;

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function share(className, part) {
  const bar = element("i");
  bar.style.width = `${(100 * part).toFixed(1)}%`;
  return element("span", { className }, bar);
}

const percent = (p) => (p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);

function showGuess() {
  const { guess } = epochShown();
  const children = guess.length ? [element("h2", { textContent: "Prediction" })] : [];
  for (const { name, probability } of guess) {
    const row = element("div", { className: `guess${name === content.truth ? " true" : ""}` });
    row.append(name, element("span", { className: "number", textContent: percent(probability) }), share("bar", probability));
    children.push(row);
  }
  if (content.truth !== null) {
    const right = guess.length ? (guess[0].name === content.truth ? " ✓" : ` ✗ predicted ${guess[0].name}`) : "";
    children.push(element("p", { className: "truth", textContent: `True label: ${content.truth}${right}` }));
  }
  byId("guess").replaceChildren(...children);
}

// focus: a point or null; panel: the one under the pointer, else the first that groups.
function showPoint(panel, focus) {
  const list = byId("readout");
  list.replaceChildren();
  for (const key of Object.keys(list.dataset)) delete list.dataset[key];
  const what = panel.block || panel.reduced ? "its cluster" : state.view === "maps" ? "its values" : "its position";
  const hint = TOUCH ? `Tap a point to see ${what}.` : `Hover over a point to see ${what}; click to keep it.`;
  byId("hint").textContent = focus === null ? hint : "";
  if (document.activeElement !== byId("point")) byId("point").value = focus ?? "";
  if (focus === null) return;
  list.dataset.point = focus;
  row(list, "Position", lattice ? placeOf(pixelPlace(focus), 0) : placeOf(array(points.position), focus));
  if (panel.block) showCluster(list, panel, focus);
  if (panel.reduced) {
    const label = panel.labels[focus];
    list.dataset.cluster = label;
    row(list, "Cluster", chip(panel.table, label), `${label + 1} of ${panel.members.length}`);
    row(list, "Members", `${panel.members[label].toLocaleString("en")} of ${count(points.count, "shown point")}`);
  }
  if (state.view === "maps") {
    for (const { name, value, nearest, low, high } of epochShown().maps) {
      row(list, name, number(low + (spread(value, nearest)[focus] / 255) * (high - low)));
    }
  }
}

function showCluster(list, { block, head, members, table }, focus) {
  const s = array(block.nearest)[focus];
  const heads = headsOf(block);
  const center = array(block.center)[s * heads + head];
  const weight = array(block.weight)[s * heads + head] / 255;
  const window = array(block.window)[s];
  Object.assign(list.dataset, { cluster: center, members: members[center], window, weight: weight.toFixed(3) });
  row(list, "Block", heads > 1 ? `${block.name}, head ${head + 1} of ${heads}` : block.name);
  row(list, "Window", `${window + 1} of ${block.windows}`);
  row(list, "Cluster", chip(table, center), `${center + 1} of ${members.length}`);
  row(list, "Center", placeOf(array(block.center_position), center));
  const [known] = shape(block.center); // fewer than the block's points if most are shown by no point
  const all = count(known, known < block.points ? "shown point" : "point");
  row(list, "Members", `${members[center].toLocaleString("en")} of ${all}`);
  row(list, "Weight", weight.toFixed(2), share("meter", weight));
  if (block.trivial) row(list, "", TRIVIAL);
}

function row(list, term, ...description) {
  list.append(element("dt", { textContent: term }), element("dd", {}, ...description));
}

function chip(table, label) {
  const made = element("span", { className: "chip" });
  made.style.background = `rgb(${table.subarray(3 * label, 3 * label + 3).join(",")})`;
  return made;
}

function placeOf(positions, i) {
  const original = (at) => Number((positions[at] * points.step).toFixed(1));
  if (lattice) return `row ${original(2 * i)}, column ${original(2 * i + 1)}`;
  const digits = clamp(3 - Math.floor(Math.log10(points.scale * 65535)), 0, 6); // thousandths of the cloud's size
  return points.low.map((low, axis) => (low + positions[3 * i + axis] * points.scale).toFixed(digits)).join(", ");
}
