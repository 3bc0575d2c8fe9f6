// A picture whose points are pixels: which point each pixel is (-1: absent), and borders between labels as paths.
let latticeSurface = null;

function latticeOf() {
  if (latticeSurface === null) {
    const { width, height } = points;
    const index = new Int32Array(width * height).fill(-1);
    array(points.pixel).forEach((pixel, i) => (index[pixel] = i));
    latticeSurface = { width, height, index, shade: null, absent: index.includes(-1) };
  }
  return latticeSurface;
}

// The sides between pixels for which differ(i, j) of their points is true; j is -1 where the pixel is absent.
function borders(surface, differ) {
  const { width, height, index } = surface;
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = index[y * width + x];
      if (x > 0 && differ(i, index[y * width + x - 1])) line(path, x, y, x, y + 1);
      if (y > 0 && differ(i, index[(y - 1) * width + x])) line(path, x, y, x + 1, y);
    }
  }
  return path;
}

function line(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}

// Row and column of a point.
function pixelPlace(i) {
  const pixel = array(points.pixel)[i];
  return [Math.floor(pixel / points.width), pixel % points.width];
}

// Where a row and a column are in a panel's picture.
const onLattice = (rect, row, column) => ({
  x: rect.x + ((column + 0.5) * rect.w) / points.width,
  y: rect.y + ((row + 0.5) * rect.h) / points.height,
  near: true,
});
