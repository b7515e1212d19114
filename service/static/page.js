// The page: a photograph goes in, a sentence of words comes out, and each word shows where it looked.

import { ask, fileName, save } from "./ask.js";
import { HeadChoice } from "./heads.js";
import { HeatMap } from "./heat.js";
import { describe, percent } from "./wording.js";

const CAPTIONS = 3;
const PLAY_STEP = 800; // milliseconds a word

const byId = (id) => document.getElementById(id);
const heat = new HeatMap(byId("heat"));
const caption = byId("caption");
const readout = byId("readout");
const heads = new HeadChoice(byId("heads"), () => render());
const isTouch = matchMedia("(hover: none)").matches;

let photograph = null; // the File
let captions = []; // of the photograph, best first
let chosen = 0; // which of them is shown
let hasMaps = true; // or else its words can be pointed at, but show nothing on the photograph
let request = null; // AbortController of the request under way
// Which word each way of pointing points at, or null; the first that is not null is shown.
const pointed = { hovered: null, played: null, focused: null };
let player = 0;

// A photograph comes in.

byId("file").addEventListener("change", (event) => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files[0]) take(event.clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.dataset.dragging = "";
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) delete document.body.dataset.dragging;
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  delete document.body.dataset.dragging;
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
byId("cancel").addEventListener("click", () => {
  request?.abort();
  enter("empty");
});

async function take(file) {
  request?.abort();
  const mine = (request = new AbortController());
  try {
    begin(file);
    const [answer] = await Promise.all([
      ask("/v1/captions", file, { num_captions: CAPTIONS, overlays: "none" }, mine.signal, showProgress),
      showPhotograph(file),
    ]);
    if (!mine.signal.aborted) present(answer.captions);
  } catch (error) {
    if (!mine.signal.aborted) fail(error.message);
  }
}

function begin(file) {
  const limit = Number(byId("ask").dataset.maxBytes);
  if (file.size > limit) {
    const size = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
    throw new Error(`This photograph has ${size(file.size)}; at most ${size(limit)} are accepted.`);
  }
  photograph = file;
  stop();
  byId("problem").textContent = "";
  enter("busy");
  showProgress(null);
}

// `state`: empty, busy, done or failed; the style sheet decides what each of them shows.
function enter(state) {
  document.body.dataset.state = state;
  const hasPhotograph = state === "busy" || state === "done";
  byId("drop").firstElementChild.textContent = hasPhotograph ? "Another photograph" : "Choose a photograph";
}

async function showPhotograph(file) {
  const image = byId("shown");
  const box = byId("photo");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  image.alt = "";
  box.hidden = true;
  try {
    await image.decode();
  } catch {
    return; // not for this browser to show; the service decides whether it is a photograph
  }
  box.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  box.hidden = false;
  heat.setPhotograph(image);
}

// `share` of the photograph that is sent, or null once only looking is left.
function showProgress(share) {
  const isSending = share !== null && share < 1;
  byId("step").textContent = isSending ? "Sending the photograph…" : "Looking at the photograph…";
  if (isSending) byId("progress").value = share;
  else byId("progress").removeAttribute("value");
}

function fail(message) {
  enter("failed");
  byId("problem").textContent = message;
}

// A caption comes out.

function present(found) {
  captions = found;
  byId("choices").replaceChildren(byId("choices").firstElementChild, ...captions.map(choice));
  byId("choices").hidden = captions.length < 2;
  const words = captions.flatMap((caption) => caption.words);
  hasMaps = words.every((word) => word.attention !== null);
  byId("no-map").hidden = hasMaps;
  byId("play").hidden = !hasMaps;
  heads.offer(words[0]?.heads?.length ?? 0);
  enter("done");
  choose(0);
}

function choose(index) {
  stop();
  chosen = index;
  const { caption: text, words } = captions[index];
  caption.replaceChildren(...words.flatMap((word, i) => [wordButton(word, i), " "]));
  caption.classList.remove("looking");
  byId("shown").alt = text;
  byId("announcement").textContent = `Caption: ${text}.`;
  byId("gif").hidden = index !== 0; // the service draws the walk for the best caption only
  render();
}

function wordButton(word, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = word.word;
  button.tabIndex = index ? -1 : 0;
  button.setAttribute("aria-describedby", "readout");
  return button;
}

function choice({ caption: text, log_prob: logProb, words }, index) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "choice", checked: !index });
  input.addEventListener("change", () => choose(index));
  const probability = document.createElement("output");
  // Of a whole sentence every probability is tiny; the mean of a word, the end counted, can be read.
  probability.textContent = `${percent(Math.exp(logProb / (words.length + 1)))} a word`;
  label.append(input, text, probability);
  return label;
}

// Pointing at words.

const wordAt = (event) => {
  const index = [...caption.children].indexOf(event.target.closest("#caption button"));
  return index < 0 ? null : index;
};
caption.addEventListener("pointerover", (event) => {
  const index = wordAt(event);
  if (index !== null) point({ hovered: index }); // between two words the last one stays
});
caption.addEventListener("pointerleave", () => point({ hovered: null }));
caption.addEventListener("focusin", (event) => point({ focused: wordAt(event) }));
// A word stays chosen while its heads are looked through.
for (const part of [caption, byId("heads")]) {
  part.addEventListener("focusout", (event) => {
    if (!byId("heads").contains(event.relatedTarget)) point({ focused: null });
  });
}
caption.addEventListener("click", (event) => event.target.closest("button")?.focus()); // Safari does not
byId("photo").addEventListener("click", stop);
document.addEventListener("keydown", onKey);

function point(change) {
  if (Object.values(change).some((index) => index !== null)) pause();
  Object.assign(pointed, change);
  render();
}

function onKey(event) {
  if (document.body.dataset.state !== "done") return;
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const last = caption.children.length - 1;
  const isInside = caption.contains(event.target);
  const here = current();
  const goals = { ArrowRight: here === null ? 0 : Math.min(here + 1, last), ArrowLeft: Math.max((here ?? 1) - 1, 0) };
  if (isInside) Object.assign(goals, { Home: 0, End: last });
  if (event.key === "Escape") stop();
  else if (event.key in goals && event.target.type !== "radio") {
    event.preventDefault();
    pointed.hovered = null;
    caption.children[goals[event.key]]?.focus();
    point({ focused: goals[event.key] }); // after Escape the word may have the focus already
  }
}

const current = () => pointed.hovered ?? pointed.played ?? pointed.focused;

function render() {
  const index = current();
  caption.classList.toggle("looking", index !== null);
  [...caption.children].forEach((button, i) => {
    button.classList.toggle("current", i === index);
    if (index !== null) button.tabIndex = i === index ? 0 : -1;
  });
  if (index === null) {
    heat.hide();
    const pointing = isTouch ? "Touch a word" : "Point at a word, or press ← and →,";
    readout.textContent = `${pointing} to see ${hasMaps ? "where it looked" : "how probable it was"}.`;
    return;
  }
  const { words, grid } = captions[chosen];
  const map = heads.mapOf(words[index]);
  if (map) heat.show(map, grid.box, words[index].chosen);
  readout.replaceChildren(...describe(words[index], map, heads.head).flatMap((part) => {
    const span = document.createElement("span");
    span.textContent = part;
    return [span, " "];
  }));
}

// Playing, and taking away.

byId("play").addEventListener("click", () => (player ? stop() : play(0)));

function play(index) {
  if (index >= caption.children.length) return stop();
  byId("play").setAttribute("aria-pressed", "true");
  Object.assign(pointed, { hovered: null, played: index });
  render();
  player = setTimeout(play, PLAY_STEP, index + 1);
}

function pause() {
  clearTimeout(player);
  player = 0;
  pointed.played = null;
  byId("play").setAttribute("aria-pressed", "false");
}

// Back to the plain photograph.
function stop() {
  pause();
  Object.assign(pointed, { hovered: null, focused: null });
  render();
}

byId("copy").hidden = !navigator.clipboard; // there is none on plain HTTP from another computer
byId("copy").addEventListener("click", async (event) => {
  await navigator.clipboard.writeText(captions[chosen].caption);
  byId("announcement").textContent = "Copied.";
  const button = event.target;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
});
byId("sheet").addEventListener("click", (event) =>
  fetching(event.target, async () => {
    const [of, which] = [photograph, chosen]; // another may be on the page when the answer comes
    const answer = await ask("/v1/captions", of, { num_captions: CAPTIONS, overlays: "sheet" });
    save(answer.captions[which].sheet, fileName(of, "sheet.jpg"));
  }));
byId("gif").addEventListener("click", (event) =>
  fetching(event.target, async () => {
    const of = photograph;
    const url = URL.createObjectURL(await ask("/v1/overlays", of, { format: "gif" }));
    save(url, fileName(of, "walk.gif"));
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }));

async function fetching(button, work) {
  button.disabled = true;
  byId("problem").textContent = "";
  try {
    await work();
  } catch (error) {
    byId("problem").textContent = error.message;
  } finally {
    button.disabled = false;
  }
}
