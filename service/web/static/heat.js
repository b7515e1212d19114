// Draws where a word looked over the photograph: the picture that model/drawing/overlay.py draws, with the
// same constants (a test compares them), and alive. Knows nothing of captions, requests or the rest of the page.

const OPACITY = 0.7;
const FULL_HEAT = 4.0;
const BLEND_SIGMA = 0.42;
const MUTED_COLOUR = 0.25;
const MUTED_LIGHT = 0.55;
const OUTLINE = 0.04;
const OUTLINE_COLOURS = ["black", "white"];
const HEAT_COLOURS = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d";

const PIXELS_PER_CELL = 16; // of the heat before it is stretched over the photograph
const LONGEST_SIDE = 1400; // pixels of the canvas
const GLIDE = 180; // milliseconds from one word to the next

const STEPS = HEAT_COLOURS.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

export class HeatMap {
  #canvas;
  #photograph;
  #muted;
  #drawn = null; // the heat on the canvas, while it is visible
  #frame = 0;

  constructor(canvas) {
    this.#canvas = canvas;
  }

  // `image`: an <img> that has loaded; it is upright, the browser reads its EXIF.
  setPhotograph(image) {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
    this.#canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
    this.#canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
    this.#photograph = onWhite(image, this.#canvas.width, this.#canvas.height);
    this.#muted = muted(this.#photograph);
    this.hide();
  }

  // `attention`: rows x columns, sums to 1. `box`: left, top, right, bottom as fractions. `chosen`: row and
  // column of the cell to outline, or undefined.
  show(attention, box, chosen) {
    const next = { ...heatOf(attention), chosen };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const previous = this.#drawn?.values.length === next.values.length ? this.#drawn : null;
    cancelAnimationFrame(this.#frame);
    if (still || !previous) this.#draw(next, box);
    else this.#glide(previous, next, box);
    this.#canvas.classList.add("lit");
  }

  hide() {
    cancelAnimationFrame(this.#frame);
    this.#drawn = null;
    this.#canvas.classList.remove("lit");
  }

  #glide(from, to, box) {
    const start = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - start) / GLIDE));
      const eased = share * share * (3 - 2 * share);
      const values = to.values.map((value, i) => from.values[i] + (value - from.values[i]) * eased);
      this.#draw({ ...to, values }, box);
      if (share < 1) this.#frame = requestAnimationFrame(step);
    };
    this.#frame = requestAnimationFrame(step);
  }

  #draw(heat, [left, top, right, bottom]) {
    const { width, height } = this.#canvas;
    const place = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    const lit = blank(width, height);
    lit.imageSmoothingQuality = "high";
    lit.drawImage(painted(heat, (value) => [0, 0, 0, 1 - (1 - value) ** 2]), ...place);
    lit.globalCompositeOperation = "source-in";
    lit.drawImage(this.#photograph, 0, 0);
    const context = this.#canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#muted, 0, 0);
    context.drawImage(lit.canvas, 0, 0);
    context.drawImage(painted(heat, (value) => [...heatColour(value), value * OPACITY]), ...place);
    if (heat.chosen) outline(context, heat, place);
    this.#drawn = heat;
  }
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d");
}

// Transparent photographs are seen on white, by the captioner too.
function onWhite(image, width, height) {
  const context = blank(width, height);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  return context.canvas;
}

// The photograph dim and nearly grey.
function muted(photograph) {
  const { width, height } = photograph;
  const context = blank(width, height);
  context.drawImage(photograph, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const data = pixels.data;
  for (let i = 0; i < data.length; i += 4) {
    const grey = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    for (let c = i; c < i + 3; c++) data[c] = (grey + (data[c] - grey) * MUTED_COLOUR) * MUTED_LIGHT;
  }
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

// The attention as heat, 0 to 1, smooth between cells, row by row.
function heatOf(attention) {
  const [rows, columns] = [attention.length, attention[0].length];
  const [down, across] = [blend(rows), blend(columns)];
  const values = new Float32Array(down.length * across.length);
  down.forEach((rowShares, y) => {
    const line = attention[0].map((_, c) => rowShares.reduce((sum, share, r) => sum + share * attention[r][c], 0));
    across.forEach((shares, x) => {
      values[y * across.length + x] = shares.reduce((sum, share, c) => sum + share * line[c], 0);
    });
  });
  const full = Math.max(values.reduce((a, b) => Math.max(a, b)), FULL_HEAT / (rows * columns));
  return { width: across.length, height: down.length, values: values.map((value) => value / full) };
}

// How much of every cell each pixel along one side shows; shares sum to 1.
function blend(cells) {
  return Array.from({ length: cells * PIXELS_PER_CELL }, (_, pixel) => {
    const position = (pixel + 0.5) / PIXELS_PER_CELL;
    const shares = Array.from({ length: cells }, (_, cell) =>
      Math.exp(-((position - cell - 0.5) ** 2) / (2 * BLEND_SIGMA ** 2)));
    const sum = shares.reduce((a, b) => a + b);
    return shares.map((share) => share / sum);
  });
}

// The chosen cell, in lines that are dark, light and dark, so that it shows on any photograph.
function outline(context, heat, [left, top, width, height]) {
  const [row, column] = heat.chosen;
  const across = (width * PIXELS_PER_CELL) / heat.width; // pixels of the canvas to a cell
  const down = (height * PIXELS_PER_CELL) / heat.height;
  const line = Math.max(1, OUTLINE * Math.min(across, down));
  const [dark, light] = OUTLINE_COLOURS;
  for (const [colour, thick] of [[dark, 3 * line], [light, line]]) {
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.strokeRect(left + column * across + line / 2, top + row * down + line / 2, across - line, down - line);
  }
}

// A small canvas with one pixel for each value; `colour` gives red, green, blue (0-255) and opacity (0-1).
function painted(heat, colour) {
  const context = blank(heat.width, heat.height);
  const pixels = context.createImageData(heat.width, heat.height);
  heat.values.forEach((value, i) => {
    const [red, green, blue, opacity] = colour(value);
    pixels.data.set([red, green, blue, Math.round(255 * opacity)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function heatColour(value) {
  const position = Math.min(1, value) * (STEPS.length - 1);
  const low = Math.min(Math.floor(position), STEPS.length - 2);
  return STEPS[low].map((level, c) => level + (STEPS[low + 1][c] - level) * (position - low));
}
