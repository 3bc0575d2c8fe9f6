// The pictures that the state asks for. labels: of each point, into table, its colors; grouped: labels are clusters.
const TRIVIAL = "at least as many centers as points: nothing is grouped";
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function panelsShown() {
  const { blocks, reduced, maps } = epochShown();
  const { view, block, head, map } = state;
  if (view === "input") return [inputPanel()];
  if (view === "reduced") return [reducedPanel(reduced)];
  if (view === "maps") return map === "all" ? [inputPanel(), ...maps.map(mapPanel)] : [mapPanel(maps[map])];
  if (block === "all") return [inputPanel(), ...blocks.map((b) => clusterPanel(b, Math.min(head, headsOf(b) - 1)))];
  if (head !== "all") return [clusterPanel(blocks[block], head)];
  return [inputPanel(), ...Array.from({ length: headsOf(blocks[block]) }, (_, h) => clusterPanel(blocks[block], h, true))];
}

// How many of the points are shown, if not all.
const shownOf = () => (points.count < points.given ? `${points.count.toLocaleString("en")} of ${count(points.given, "point")} shown` : "");

function inputPanel() {
  const note = [shownOf() || count(points.given, "point")];
  const absent = lattice ? 1 - points.count / (points.width * points.height) : 0;
  if (absent > 0) note.push(`${percent(absent)} of the pixels absent`);
  return { title: "input", note: note.join(", "), labels: null };
}

function clusterPanel(block, head, several = false) {
  const heads = headsOf(block);
  const [nearest, center, window] = [array(block.nearest), array(block.center), array(block.window)];
  const [, total] = shape(block.color);
  const note = `${count(block.points, "point")}, ${count(block.windows, "window")} of ${count(block.centers, "center")}`;
  const members = new Uint32Array(total);
  for (let at = head; at < center.length; at += heads) members[center[at]]++;
  return {
    title: several || head > 0 ? `${block.name}, head ${head + 1}` : block.name,
    note: block.kind === "soft" ? `${note}, soft` : note,
    message: block.trivial ? TRIVIAL : null,
    block, head, members,
    labels: block.trivial ? null : Uint32Array.from(nearest, (s) => center[s * heads + head]),
    windows: Uint32Array.from(nearest, (s) => window[s]),
    table: array(block.color).subarray(3 * head * total, 3 * (head + 1) * total),
    grouped: !block.trivial,
    marks: block.trivial ? null : array(block.center_position),
  };
}

function reducedPanel(reduced) {
  const labels = spread(reduced.label, reduced.nearest);
  const members = new Uint32Array(shape(reduced.color)[0]);
  labels.forEach((label) => members[label]++);
  return { title: reduced.name, note: "", labels, members, table: array(reduced.color), grouped: true, reduced };
}

function mapPanel(map) {
  return { title: map.name, note: "", labels: spread(map.value, map.nearest), table: HEAT, grouped: false, map };
}
