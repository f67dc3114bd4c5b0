// One canvas: the crop with a hollow reticle, the whole image with the crop's frame.

const REACH = 96;  // pixels of a crop on each side; pictures.py has the same number
export const HALVES = [8, 16, 32, 64, 96];  // pixels shown on each side, by zoom
const GAP = 8;
const STACKED_BELOW = 560;

/** Draw; `query` null: an empty canvas. Returns where the queried pixel lies, in canvas pixels. */
export function draw(canvas, query, pictures, { zoom, hasMarker, segments }) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, width, height);
  if (!query) return null;
  const gap = GAP * ratio;
  const isStacked = canvas.clientWidth < STACKED_BELOW;
  const side = Math.floor(isStacked
    ? Math.min(width, height * 0.64)
    : Math.min(height, (width - gap) * 0.58));
  const left = isStacked ? Math.floor((width - side) / 2) : 0;
  const half = HALVES[zoom];
  drawCrop(pen, query, pictures.crop, { left, side, half, ratio });
  const centre = { x: left + side / 2, y: side / 2 };
  const pixel = side / (2 * half + 1);
  if (segments) drawOutline(pen, query, segments, { left, side, half, pixel, ratio });
  if (hasMarker) drawReticle(pen, centre, pixel, side, ratio);
  const rest = isStacked
    ? { left: 0, top: side + gap, width, height: height - side - gap }
    : { left: side + gap, top: 0, width: width - side - gap, height };
  drawWhole(pen, query, pictures.whole, rest, half, ratio);
  return { ...centre, pixel };
}

function drawCrop(pen, query, image, { left, side, half, ratio }) {
  const pixel = side / (2 * half + 1);
  const firstX = Math.max(0, query.x - REACH);
  const firstY = Math.max(0, query.y - REACH);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, side, side);
  pen.clip();
  pen.imageSmoothingEnabled = pixel < 1;
  pen.drawImage(
    image,
    left + (firstX - query.x + half) * pixel,
    (firstY - query.y + half) * pixel,
    image.width * pixel,
    image.height * pixel,
  );
  pen.restore();
  pen.strokeStyle = "#000";
  pen.lineWidth = ratio;
  pen.strokeRect(left + ratio / 2, ratio / 2, side - ratio, side - ratio);
}

/** Draw segments between the image's pixels, in black and white. */
function drawOutline(pen, query, segments, { left, side, half, pixel, ratio }) {
  const x = (value) => left + (value - query.x + half) * pixel;
  const y = (value) => (value - query.y + half) * pixel;
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, side, side);
  pen.clip();
  pen.lineCap = "round";
  for (const [color, lineWidth] of [["#000", 3 * ratio], ["#fff", 1.4 * ratio]]) {
    pen.strokeStyle = color;
    pen.lineWidth = lineWidth;
    pen.beginPath();
    for (const [x0, y0, x1, y1] of segments) {
      pen.moveTo(x(x0), y(y0));
      pen.lineTo(x(x1), y(y1));
    }
    pen.stroke();
  }
  pen.restore();
}

/** Draw a ring and four ticks in black and white around the pixel, none of them over it. */
function drawReticle(pen, centre, pixel, side, ratio) {
  const inside = Math.max(pixel * Math.SQRT1_2 + 4 * ratio, 11 * ratio);
  const end = Math.min(inside + 14 * ratio, side / 2);
  for (const [color, lineWidth] of [["#000", 4 * ratio], ["#fff", 1.8 * ratio]]) {
    pen.strokeStyle = color;
    pen.lineWidth = lineWidth;
    pen.beginPath();
    pen.arc(centre.x, centre.y, inside, 0, 2 * Math.PI);
    for (const [x, y] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      pen.moveTo(centre.x + x * inside, centre.y + y * inside);
      pen.lineTo(centre.x + x * end, centre.y + y * end);
    }
    pen.stroke();
  }
}

function drawWhole(pen, query, image, place, half, ratio) {
  const scale = Math.min(place.width / query.width, place.height / query.height);
  if (scale <= 0) return;
  const width = query.width * scale;
  const height = query.height * scale;
  const left = place.left + (place.width - width) / 2;
  const top = place.top + (place.height - height) / 2;
  pen.imageSmoothingEnabled = true;
  pen.drawImage(image, left, top, width, height);
  const frame = Math.max((2 * half + 1) * scale, 14 * ratio);
  const x = left + (query.x + 0.5) * scale - frame / 2;
  const y = top + (query.y + 0.5) * scale - frame / 2;
  pen.save();
  pen.beginPath();
  pen.rect(place.left, place.top, place.width, place.height);
  pen.clip();
  for (const [color, lineWidth] of [["#000", 4 * ratio], ["#fff", 1.8 * ratio]]) {
    pen.strokeStyle = color;
    pen.lineWidth = lineWidth;
    pen.strokeRect(x, y, frame, frame);
  }
  pen.restore();
}
