// The page: photographs go in, a sentence of words comes out of each, and each word shows where it looked.

import { offerCamera } from "./camera.js";
import { watchForPhotographs } from "./intake.js";
import { Queue } from "./queue.js";
import { Table } from "./table.js";
import { saveCsv } from "./taking.js";
import { View } from "./view.js";
import { tallyOf } from "./wording.js";

const byId = (id) => document.getElementById(id);
const ANNOUNCING = 100; // milliseconds after which a sentence that was there already is read again

const queue = new Queue(Number(byId("ask").dataset.maxBytes), changed);
const view = new View(announce);
const table = new Table(byId("rows"), byId("row"), { open, retry, remove });
let viewed = null; // the photo in the view, or null where the table is shown, or nothing

watchForPhotographs(take, complain);
offerCamera(take, complain);
byId("clear").addEventListener("click", () => {
  const isEdited = queue.photos.some((photo) => photo.isEdited);
  if (isEdited && !confirm("Your edited captions will be lost. Start over?")) return;
  queue.clear();
  open(null);
});
byId("cancel").addEventListener("click", () => remove(viewed));
byId("retry").addEventListener("click", () => retry(viewed));
byId("csv-all").addEventListener("click", () => saveCsv(queue.photos));
byId("back").addEventListener("click", () => {
  const left = viewed;
  open(null);
  table.focus(left);
});
byId("next").addEventListener("click", () => {
  const { photos } = queue;
  const at = photos.indexOf(viewed);
  open([...photos.slice(at + 1), ...photos.slice(0, at)].find(({ state }) => state !== "failed") ?? viewed);
});

function take(files) {
  if (!files.length) return;
  if (document.body.dataset.state === "failed") queue.clear();
  const added = queue.add(files);
  open(added.length === 1 ? added[0] : null);
}

// Shows a photo large, or all of them if it is null.
function open(photo) {
  viewed = photo;
  queue.prefer(photo);
  complain("");
  arrange();
}

function retry(photo) {
  complain("");
  queue.retry(photo);
  table.focus(photo); // its own button is gone
}

function remove(photo) {
  const { photos } = queue;
  const at = photos.indexOf(photo);
  const next = photos[at + 1] ?? photos[at - 1];
  queue.remove(photo);
  if (photo === viewed) viewed = null;
  arrange();
  if (next) table.focus(next);
}

// The state of a photo is another.
function changed(photo) {
  table.update(photo);
  byId("tally").textContent = tallyOf(queue.photos);
  if (photo === viewed) {
    arrange();
    if (viewed) view.update();
  }
  const isAtWork = queue.photos.some(({ state }) => state !== "captioned" && state !== "failed");
  if (!isAtWork && !viewed && queue.photos.length) announce(`${tallyOf(queue.photos)}.`);
}

// Brings the page to what there is. `state`: empty, busy, done or failed of one photograph, or many; the style
// sheets decide what each of them shows.
function arrange() {
  const { photos } = queue;
  if (viewed?.state === "failed" && photos.length > 1) viewed = null; // its row says why
  const states = { captioned: "done", failed: "failed" };
  enter(viewed ? (states[viewed.state] ?? "busy") : photos.length ? "many" : "empty");
  if (viewed?.state === "failed") complain(viewed.why);
  byId("again").hidden = !viewed?.isWorthRetrying || viewed.state !== "failed";
  byId("place").hidden = photos.length < 2;
  byId("which").textContent = viewed ? `${photos.indexOf(viewed) + 1} of ${photos.length}, ${viewed.name}` : "";
  byId("tally").textContent = tallyOf(photos);
  table.show(photos);
  for (const photo of viewed ? [] : photos) table.update(photo); // texts may have been edited in the view
  view.photo = viewed;
}

function enter(state) {
  const held = document.activeElement;
  document.body.dataset.state = state;
  const isFirst = state === "empty" || state === "failed";
  byId("invitation").textContent = isFirst ? "Choose a photo" : "Add more";
  if (held === document.body || held.checkVisibility?.() !== false) return;
  byId({ done: "result", busy: "cancel", many: "many" }[state] ?? "file").focus(); // what had it is gone
}

function complain(sentence) {
  byId("problem").textContent = sentence;
}

function announce(sentence) {
  byId("announcement").textContent = "";
  setTimeout(() => (byId("announcement").textContent = sentence), ANNOUNCING);
}
