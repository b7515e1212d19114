// Draws the attention map of a word over the photo, as model/drawing/overlay.py does and with the same constants (a test
// compares them), with animated transitions. Independent of captions, requests and the rest of the page.

const OPACITY = 0.7;
const FULL_HEAT = 4.0;
const BLEND_SIGMA = 0.42;
const MUTED_COLOUR = 0.25;
const MUTED_LIGHT = 0.55;
const OUTLINE = 0.04;
const OUTLINE_COLOURS = ["black", "white"];
const HEAT_COLOURS = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d";

const PIXELS_PER_CELL = 16; // of the heat map before it is scaled to the photo
const MAX_SIDE = 1400; // pixels, of the canvas
const TRANSITION = 180; // milliseconds, from one word to the next

const COLOUR_STOPS = HEAT_COLOURS.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

export class HeatMap {
  #canvas;
  #photo;
  #muted;
  #shown = null; // the heat map on the canvas, while visible
  #frame = 0; // animation frame request

  constructor(canvas) {
    this.#canvas = canvas;
  }

  // `image`: a loaded <img>; browsers apply its EXIF orientation.
  setPhoto(image) {
    const scale = Math.min(1, MAX_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
    this.#canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
    this.#canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
    this.#photo = compositeOnWhite(image, this.#canvas.width, this.#canvas.height);
    this.#muted = muted(this.#photo);
    this.hide();
  }

  // `attention`: rows x columns, sums to 1. `box`: left, top, right, bottom as fractions. `chosen`: row and column of
  // a cell to outline, or undefined.
  show(attention, box, chosen) {
    const next = { ...heatOf(attention), chosen };
    const isStatic = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const previous = this.#shown?.values.length === next.values.length ? this.#shown : null;
    cancelAnimationFrame(this.#frame);
    if (isStatic || !previous) this.#draw(next, box);
    else this.#animate(previous, next, box);
    this.#canvas.classList.add("visible");
  }

  hide() {
    cancelAnimationFrame(this.#frame);
    this.#shown = null;
    this.#canvas.classList.remove("visible");
  }

  #animate(from, to, box) {
    const start = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - start) / TRANSITION));
      const eased = share * share * (3 - 2 * share);
      const values = to.values.map((value, i) => from.values[i] + (value - from.values[i]) * eased);
      this.#draw({ ...to, values }, box);
      if (share < 1) this.#frame = requestAnimationFrame(step);
    };
    this.#frame = requestAnimationFrame(step);
  }

  #draw(heat, [left, top, right, bottom]) {
    const { width, height } = this.#canvas;
    const area = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    const coloured = newContext(width, height);
    coloured.imageSmoothingQuality = "high";
    coloured.drawImage(painted(heat, (value) => [0, 0, 0, 1 - (1 - value) ** 2]), ...area);
    coloured.globalCompositeOperation = "source-in";
    coloured.drawImage(this.#photo, 0, 0);
    const context = this.#canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#muted, 0, 0);
    context.drawImage(coloured.canvas, 0, 0);
    context.drawImage(painted(heat, (value) => [...heatColour(value), value * OPACITY]), ...area);
    if (heat.chosen) outline(context, heat, area);
    this.#shown = heat;
  }
}

function newContext(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d");
}

// Transparent areas are composited on white, as in preprocessing.
function compositeOnWhite(image, width, height) {
  const context = newContext(width, height);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  return context.canvas;
}

// A darkened, desaturated copy.
function muted(photo) {
  const { width, height } = photo;
  const context = newContext(width, height);
  context.drawImage(photo, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const data = pixels.data;
  for (let i = 0; i < data.length; i += 4) {
    const grey = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    for (let c = i; c < i + 3; c++) data[c] = (grey + (data[c] - grey) * MUTED_COLOUR) * MUTED_LIGHT;
  }
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

// Attention as heat, 0 to 1, interpolated between cells, row by row.
function heatOf(attention) {
  const [rows, columns] = [attention.length, attention[0].length];
  const [down, across] = [blend(rows), blend(columns)];
  const values = new Float32Array(down.length * across.length);
  down.forEach((rowWeights, y) => {
    const line = attention[0].map((_, c) => rowWeights.reduce((sum, weight, r) => sum + weight * attention[r][c], 0));
    across.forEach((weights, x) => {
      values[y * across.length + x] = weights.reduce((sum, weight, c) => sum + weight * line[c], 0);
    });
  });
  const full = Math.max(values.reduce((a, b) => Math.max(a, b)), FULL_HEAT / (rows * columns));
  return { width: across.length, height: down.length, values: values.map((value) => value / full) };
}

// For each pixel along one axis, the weight of every cell; the weights of a pixel sum to 1.
function blend(cells) {
  return Array.from({ length: cells * PIXELS_PER_CELL }, (_, pixel) => {
    const position = (pixel + 0.5) / PIXELS_PER_CELL;
    const weights = Array.from({ length: cells }, (_, cell) =>
      Math.exp(-((position - cell - 0.5) ** 2) / (2 * BLEND_SIGMA ** 2)));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  });
}

// Outlines a cell in dark, light and dark lines, so that it is visible on any photo.
function outline(context, heat, [left, top, width, height]) {
  const [row, column] = heat.chosen;
  const across = (width * PIXELS_PER_CELL) / heat.width; // canvas pixels per cell
  const down = (height * PIXELS_PER_CELL) / heat.height;
  const line = Math.max(1, OUTLINE * Math.min(across, down));
  const [dark, light] = OUTLINE_COLOURS;
  for (const [colour, lineWidth] of [[dark, 3 * line], [light, line]]) {
    context.strokeStyle = colour;
    context.lineWidth = lineWidth;
    context.strokeRect(left + column * across + line / 2, top + row * down + line / 2, across - line, down - line);
  }
}

// A small canvas with one pixel per value; `colour` returns red, green, blue (0-255) and opacity (0-1).
function painted(heat, colour) {
  const context = newContext(heat.width, heat.height);
  const pixels = context.createImageData(heat.width, heat.height);
  heat.values.forEach((value, i) => {
    const [red, green, blue, opacity] = colour(value);
    pixels.data.set([red, green, blue, Math.round(255 * opacity)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function heatColour(value) {
  const position = Math.min(1, value) * (COLOUR_STOPS.length - 1);
  const low = Math.min(Math.floor(position), COLOUR_STOPS.length - 2);
  return COLOUR_STOPS[low].map((level, c) => level + (COLOUR_STOPS[low + 1][c] - level) * (position - low));
}
