// Draws the panels: headings, pictures, borders, centers, and what belongs to the point in focus.
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const LARGE = { title: `600 13px ${FONT}`, note: `12px ${FONT}`, line: 17 };
const SMALL = { title: `600 11px ${FONT}`, line: 13 }; // above narrow pictures, without the note
const number = (value, digits = 3) => Number(value.toPrecision(digits)).toString();

// Set rect, the place of its picture, and lines, its heading, of each panel. Returns the height that is used, which may
// be more than given if pictures would be narrower than least.
function layOut(context, width, height, panels, least) {
  const footer = panels.some((panel) => panel.map) ? 24 : 0;
  const aspect = lattice ? points.width / points.height : null;
  let [heading, needed] = [0, LARGE.line + 4];
  while (needed > heading) {
    heading = needed; // narrower pictures have more lines above them
    const rects = arrange(panels.length, width, height, heading, footer, aspect, least);
    panels.forEach((panel, i) => (panel.rect = rects[i]));
    panels.forEach((panel) => (panel.lines = headingLines(context, panel)));
    needed = Math.max(...panels.map(({ lines }) => lines.reduce((sum, { line }) => sum + line, 4)));
  }
  return Math.ceil(Math.max(...panels.map(({ rect }) => rect.y + rect.h)) + footer);
}

// ratio: pixels of a cloud's picture by those of the page.
function draw(context, width, height, panels, focus, ratio) {
  context.fillStyle = theme("paper");
  context.fillRect(0, 0, width, height);
  for (const panel of panels) {
    const { rect } = panel;
    panel.lines.forEach(({ text, font, color, line }, i) => {
      context.font = font;
      context.fillStyle = theme(color);
      context.fillText(text, rect.x, rect.y - 8 - line * (panel.lines.length - 1 - i));
    });
    const surface = lattice ? latticeOf() : cloudOf(rect.w, rect.h, ratio);
    panel.surface = surface;
    context.save();
    context.beginPath();
    context.rect(rect.x, rect.y, rect.w, rect.h);
    context.clip();
    if (surface.absent) hatch(context, rect);
    context.imageSmoothingEnabled = !lattice || rect.w < points.width;
    context.drawImage(painted(surface, colorsOf(panel, focus)), rect.x, rect.y, rect.w, rect.h);
    if (panel.marks && state.marks && lattice) drawBorders(context, panel, focus);
    if (panel.marks && state.marks) drawCenters(context, panel, focus);
    if (focus !== null) drawFocus(context, panel, focus);
    if (panel.message) drawMessage(context, rect, panel.message);
    context.restore();
    if (panel.map) drawScale(context, rect, panel.map);
  }
}

function headingLines(context, panel) {
  const narrow = panel.rect.w < 160;
  const { title, note, line } = narrow ? SMALL : LARGE;
  const lines = (text, font, color) => {
    context.font = font;
    return text ? wrapped(context, text, panel.rect.w).map((text) => ({ text, font, color, line })) : [];
  };
  return [...lines(panel.title, title, "ink"), ...lines(narrow ? "" : panel.note, note, "muted")];
}

function drawMessage(context, { x, y, w, h }, message) {
  const { title, line } = w < 160 ? SMALL : LARGE;
  context.font = title;
  const lines = wrapped(context, message, Math.min(w - 24, 300));
  const tall = line * lines.length + 16;
  const wide = Math.max(...lines.map((text) => context.measureText(text).width)) + 24;
  const [middle, top] = [x + w / 2, y + (h - tall) / 2];
  context.fillStyle = theme("paper");
  context.globalAlpha = 0.88;
  context.beginPath();
  context.roundRect(middle - wide / 2, top, wide, tall, 6);
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = theme("ink");
  context.textAlign = "center";
  lines.forEach((text, i) => context.fillText(text, middle, top + line + 3 + line * i));
  context.textAlign = "left";
}

function hatch(context, { x, y, w, h }) {
  context.fillStyle = theme("hatch");
  context.fillRect(x, y, w, h);
  context.strokeStyle = theme("stripe");
  context.lineWidth = 4;
  context.beginPath();
  for (let at = -h; at < w; at += 12) line(context, x + at, y + h, x + at + h, y);
  context.stroke();
}

function drawBorders(context, panel, focus) {
  const { rect, labels, windows, surface } = panel;
  const scale = rect.w / points.width;
  panel.clusterBorders ??= borders(surface, (i, j) => i >= 0 && j >= 0 && labels[i] !== labels[j]);
  panel.windowBorders ??= borders(surface, (i, j) => i >= 0 && j >= 0 && windows[i] !== windows[j]);
  const stroke = (path, color, width) => {
    context.strokeStyle = color;
    context.lineWidth = (width * clamp(rect.w / 300, 0.4, 1)) / scale; // thin in small pictures
    context.stroke(path);
  };
  context.save();
  context.translate(rect.x, rect.y);
  context.scale(scale, scale);
  stroke(panel.clusterBorders, "rgba(0, 0, 0, 0.35)", 1);
  stroke(panel.windowBorders, focus === null ? "white" : "rgba(255, 255, 255, 0.6)", 1.6);
  if (focus !== null) {
    const inside = (i) => i >= 0 && windows[i] === windows[focus];
    const around = borders(surface, (i, j) => inside(i) !== inside(j));
    stroke(around, theme("paper"), 4);
    stroke(around, theme("ink"), 2);
  }
  context.restore();
}

// Where a center is in a panel's picture.
function centerPlace(panel, center) {
  const { rect, marks, surface } = panel;
  if (lattice) return onLattice(rect, marks[2 * center], marks[2 * center + 1]);
  return inCloud(rect, surface, cloudPoints().toUnits(marks.subarray(3 * center, 3 * center + 3)), 0);
}

function pointPlace(panel, i) {
  if (!lattice) return inCloud(panel.rect, panel.surface, cloudPoints().xyz, 3 * i);
  return onLattice(panel.rect, ...pixelPlace(i));
}

function drawCenters(context, panel, focus) {
  const { rect, members, table, labels } = panel;
  const used = members.reduce((sum, n) => sum + (n > 0), 0);
  const radius = clamp(0.08 * Math.sqrt((rect.w * rect.h) / used), 1.2, 5);
  members.forEach((n, center) => {
    if (n === 0 || (focus !== null && labels[focus] === center)) return;
    const { x, y, near, hidden } = centerPlace(panel, center);
    if (hidden) return;
    context.globalAlpha = (near ? 1 : 0.3) * (focus === null ? 1 : 0.35);
    disc(context, x, y, radius, `rgb(${table.subarray(3 * center, 3 * center + 3).join(",")})`, "black", radius / 3);
  });
  context.globalAlpha = 1;
}

function disc(context, x, y, radius, fill, stroke, width) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = stroke;
  context.lineWidth = width;
  context.stroke();
}

function drawFocus(context, panel, focus) {
  const point = pointPlace(panel, focus);
  const radius = clamp(panel.rect.w / 50, 3.5, 6.5);
  if (panel.marks) {
    const center = panel.labels[focus];
    const { x, y } = centerPlace(panel, center);
    for (const [color, width] of [["white", 4], ["black", 1.8]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      line(context, point.x, point.y, x, y);
      context.stroke();
    }
    disc(context, x, y, radius, `rgb(${panel.table.subarray(3 * center, 3 * center + 3).join(",")})`, "white", 4);
    disc(context, x, y, radius, "transparent", "black", 1.8);
  }
  disc(context, point.x, point.y, 0.6 * radius, "white", "black", 1.8);
}

function drawScale(context, { x, y, w, h }, { low, high }) {
  const gradient = context.createLinearGradient(x, 0, x + w, 0);
  for (let stop = 0; stop <= 16; stop++) {
    const at = 3 * Math.round((stop / 16) * 255);
    gradient.addColorStop(stop / 16, `rgb(${HEAT.subarray(at, at + 3).join(",")})`);
  }
  context.fillStyle = gradient;
  context.fillRect(x, y + h + 4, w, 5);
  context.fillStyle = theme("muted");
  context.font = `11px ${FONT}`;
  const texts = [3, 2, 1].map((digits) => [number(low, digits), number(high, digits)]);
  const wide = ([left, right]) => context.measureText(`${left}  ${right}`).width;
  const [left, right] = texts.find((pair) => wide(pair) <= w) ?? texts[2];
  context.fillText(left, x, y + h + 20);
  context.textAlign = "right";
  context.fillText(right, x + w, y + h + 20);
  context.textAlign = "left";
}
