// Places of several pictures of one size, with a heading above each and a footer below.
const GAP = 14;

// aspect: width by height of a picture; null where it may fill its cell. least: width below which a picture is not
// shrunk to fit the height.
function arrange(count, width, height, heading, footer, aspect, least) {
  let best = null;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    let w = (width - GAP * (columns - 1)) / columns;
    let h = (height - GAP * (rows - 1)) / rows - heading - footer;
    if (aspect !== null) [w, h] = [Math.min(w, h * aspect), Math.min(h, w / aspect)];
    const score = aspect !== null ? w : Math.min(w, 1.2 * h);
    if (!best || score > best.score) best = { score, columns, w: Math.max(8, w), h: Math.max(8, h) };
  }
  if (Math.min(best.w, best.h * (aspect ?? 1)) < Math.min(least, width)) {
    const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    const w = (width - GAP * (columns - 1)) / columns;
    best = { columns, w, h: w / (aspect ?? 1) };
  }
  const { columns, w, h } = best;
  const across = Math.min(w + GAP, (width + GAP) / columns);
  const down = heading + h + footer + GAP;
  const left = (width - (columns * across - GAP)) / 2;
  return Array.from({ length: count }, (_, i) => ({
    x: left + (i % columns) * across,
    y: Math.floor(i / columns) * down + heading,
    w,
    h,
  }));
}

// Lines of text no wider than width; a word is never cut.
function wrapped(context, text, width) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
