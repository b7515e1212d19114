// Connects the parts of the page: photos come in, are captioned one after another, and are shown singly or in a table.

import { setUpCamera } from "./camera.js";
import { saveCsv } from "./editor.js";
import { listenForFiles } from "./file_input.js";
import { summaryOf } from "./labels.js";
import { Queue } from "./queue.js";
import { Table } from "./table.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const ANNOUNCE_DELAY = 100; // milliseconds between clearing and setting a text, so that screen readers repeat it

const queue = new Queue(Number(byId("upload-form").dataset.maxBytes), onChange);
const view = new View(announce);
const table = new Table(byId("rows"), byId("row"), { open, retry, remove });
let current = null; // the photo in the view, or null

listenForFiles(add, showProblem);
setUpCamera(add, showProblem);
byId("clear").addEventListener("click", () => {
  const isEdited = queue.photos.some((photo) => photo.isEdited);
  if (isEdited && !confirm("Your edited captions will be lost. Start over?")) return;
  queue.clear();
  open(null);
});
byId("cancel").addEventListener("click", () => remove(current));
byId("retry").addEventListener("click", () => retry(current));
byId("save-all").addEventListener("click", () => saveCsv(queue.photos));
byId("back").addEventListener("click", () => {
  const previous = current;
  open(null);
  table.focus(previous);
});
byId("next").addEventListener("click", () => {
  const { photos } = queue;
  const index = photos.indexOf(current);
  open([...photos.slice(index + 1), ...photos.slice(0, index)].find(({ state }) => state !== "failed") ?? current);
});

function add(files) {
  if (!files.length) return;
  if (document.body.dataset.state === "failed") queue.clear();
  const added = queue.add(files);
  open(added.length === 1 ? added[0] : null);
}

// Shows one photo, or the table if `photo` is null.
function open(photo) {
  current = photo;
  queue.prioritize(photo);
  showProblem("");
  render();
}

function retry(photo) {
  showProblem("");
  queue.retry(photo);
  table.focus(photo); // the retry button is hidden now
}

function remove(photo) {
  const { photos } = queue;
  const index = photos.indexOf(photo);
  const neighbour = photos[index + 1] ?? photos[index - 1];
  queue.remove(photo);
  if (photo === current) current = null;
  render();
  if (neighbour) table.focus(neighbour);
}

function onChange(photo) {
  table.update(photo);
  byId("summary").textContent = summaryOf(queue.photos);
  if (photo === current) {
    render();
    if (current) view.update();
  }
  const isBusy = queue.photos.some(({ state }) => state !== "captioned" && state !== "failed");
  if (!isBusy && !current && queue.photos.length) announce(`${summaryOf(queue.photos)}.`);
}

// Updates the page. Its state is empty; busy, done or failed, for one photo; or many. The style sheets decide what is
// visible in each state.
function render() {
  const { photos } = queue;
  if (current?.state === "failed" && photos.length > 1) current = null; // its row shows the error
  const states = { captioned: "done", failed: "failed" };
  setState(current ? (states[current.state] ?? "busy") : photos.length ? "many" : "empty");
  if (current?.state === "failed") showProblem(current.error);
  byId("retry-line").hidden = !current?.isRetryable || current.state !== "failed";
  byId("navigation").hidden = photos.length < 2;
  byId("position").textContent = current ? `${photos.indexOf(current) + 1} of ${photos.length}, ${current.name}` : "";
  byId("summary").textContent = summaryOf(photos);
  table.show(photos);
  for (const photo of current ? [] : photos) table.update(photo); // captions may have been edited in the view
  view.photo = current;
}

function setState(state) {
  const focused = document.activeElement;
  document.body.dataset.state = state;
  const isStart = state === "empty" || state === "failed";
  byId("file-label").textContent = isStart ? "Choose a photo" : "Add more";
  if (focused === document.body || focused.checkVisibility?.() !== false) return;
  byId({ done: "result", busy: "cancel", many: "many" }[state] ?? "file").focus(); // the focused element is hidden now
}

function showProblem(message) {
  byId("problem").textContent = message;
}

function announce(message) {
  byId("announcement").textContent = "";
  setTimeout(() => (byId("announcement").textContent = message), ANNOUNCE_DELAY);
}
