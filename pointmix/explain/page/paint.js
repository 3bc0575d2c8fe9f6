// The color of each point in a panel.
const own = array(points.color);
const light = lattice ? null : array(points.light); // brightness by the slope of the surface
const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"];

// 256 colors from dark to bright (matplotlib's inferno).
const HEAT = Uint8Array.from({ length: 768 }, (_, at) => {
  const [place, channel] = [(Math.floor(at / 3) / 255) * (INFERNO.length - 1), at % 3];
  const value = (stop) => parseInt(INFERNO[Math.min(stop, INFERNO.length - 1)].slice(2 * channel, 2 * channel + 2), 16);
  const low = Math.floor(place);
  return value(low) + (place - low) * (value(low + 1) - value(low));
});

const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// One number for each point, as ImageData stores it. With focus, a point: its cluster keeps its color, the rest of its
// window is paler and all else palest.
function colorsOf(panel, focus) {
  const { labels, windows, table, grouped } = panel;
  const paper = channels(theme("paper"));
  const opacity = labels ? state.opacity / 100 : 0;
  const label = grouped && focus !== null ? labels[focus] : null;
  const colors = new Uint32Array(points.count);
  for (let i = 0; i < points.count; i++) {
    const gray = (own[3 * i] + own[3 * i + 1] + own[3 * i + 2]) / 3; // keeps the picture visible under the color
    const pale = label === null || labels[i] === label ? 0 : windows && windows[i] === windows[focus] ? 0.55 : 0.82;
    let color = 0xff000000;
    for (let channel = 0; channel < 3; channel++) {
      let value = own[3 * i + channel];
      if (labels) value += opacity * (gray - value);
      if (labels) value += opacity * (table[3 * labels[i] + channel] - value);
      if (light) value *= light[i] / 255;
      color |= Math.round(value + pale * (paper[channel] - value)) << (8 * channel);
    }
    colors[i] = color;
  }
  return colors;
}

// A canvas with the pixels of a surface, transparent where there is no point.
function painted({ width, height, index, shade }, colors) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < index.length; at++) {
    if (index[at] < 0) continue;
    const color = colors[index[at]];
    if (!shade || shade[at] === 255) {
      pixels[at] = color;
    } else {
      const s = shade[at];
      const [r, g, b] = [((color & 255) * s) >> 8, (((color >> 8) & 255) * s) >> 8, (((color >> 16) & 255) * s) >> 8];
      pixels[at] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
