// One photograph large: while it is worked on, and then its caption, whose words show where it looked.

import { HeadChoice } from "./heads.js";
import { HeatMap } from "./heat.js";
import { Taking } from "./taking.js";
import { describe, percent } from "./wording.js";
import { Words } from "./words.js";

const byId = (id) => document.getElementById(id);
const isTouch = matchMedia("(hover: none)").matches;
const isStill = matchMedia("(prefers-reduced-motion: reduce)");

export class View {
  #heat = new HeatMap(byId("heat"));
  #heads = new HeadChoice(byId("heads"), () => this.#onPoint(this.#words.current));
  #taking = new Taking();
  #announce;
  #photo = null;
  #words;
  #hasMaps = true; // or else its words can be pointed at, but show nothing on the photograph

  constructor(announce) {
    this.#announce = announce;
    const parts = { caption: byId("caption"), heads: byId("heads"), button: byId("play") };
    this.#words = new Words({ ...parts, onPoint: (index) => this.#onPoint(index) });
    byId("photo").addEventListener("click", () => this.#words.stop());
    byId("strength").addEventListener("input", () => this.#setStrength());
    addEventListener("resize", () => this.#letScroll());
  }

  // The photo in the view, or null while it is closed.
  set photo(photo) {
    if (photo === this.#photo) return;
    this.#photo = photo;
    this.#words.isActive = false;
    this.#words.stop();
    if (photo) this.#showPhotograph(photo);
    if (photo?.state === "captioned") this.#present();
  }

  // The state of the photo in the view has changed.
  update() {
    if (this.#photo.state === "captioned") this.#present();
    else this.#showProgress();
  }

  async #showPhotograph(photo) {
    this.#showProgress();
    const [image, box] = [byId("shown"), byId("photo")];
    Object.assign(image, { src: photo.url, alt: "" });
    box.hidden = true;
    try {
      await image.decode();
    } catch {
      return; // not for this browser to show; the service decides whether it is a photograph
    }
    if (photo !== this.#photo) return;
    box.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    box.hidden = false;
    this.#heat.setPhotograph(image);
    this.#letScroll();
    this.#onPoint(this.#words.current);
  }

  // A photograph much wider than the page scrolls in its frame, with the keys too.
  #letScroll() {
    const frame = byId("frame");
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  }

  #showProgress() {
    const { state, share } = this.#photo;
    byId("step").textContent = {
      waiting: "Waiting…",
      sending: "Uploading…",
      held: "The server is busy. Retrying…",
    }[state] ?? "Captioning…";
    if (state === "sending" && share !== null) byId("progress").value = share;
    else byId("progress").removeAttribute("value");
  }

  #present() {
    const { captions, chosen } = this.#photo;
    const words = captions.flatMap((caption) => caption.words);
    this.#hasMaps = words.every((word) => word.attention !== null);
    byId("no-map").hidden = this.#hasMaps;
    byId("map-tools").hidden = !this.#hasMaps;
    byId("choices").replaceChildren(byId("choices").firstElementChild, ...captions.map((_, i) => this.#choice(i)));
    byId("choices").hidden = captions.length < 2;
    this.#words.isActive = true;
    this.#choose(chosen);
  }

  #choose(index) {
    this.#photo.chosen = index;
    const record = this.#photo.captions[index];
    this.#heads.offer(record.words[0]?.heads?.length ?? 0);
    this.#words.write(record);
    this.#taking.offer(this.#photo, this.#announce);
    byId("shown").alt = record.caption;
    this.#announce(`Caption: ${record.caption}.`);
  }

  #choice(index) {
    const { caption: text, log_prob: logProb, words } = this.#photo.captions[index];
    const label = document.createElement("label");
    const checked = index === this.#photo.chosen;
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "choice", checked });
    input.addEventListener("change", () => this.#choose(index));
    const probability = document.createElement("output");
    // Of a whole sentence every probability is tiny; the mean of a word, the end counted, can be read.
    probability.textContent = `${percent(Math.exp(logProb / (words.length + 1)))} per word`;
    label.append(input, text, probability);
    return label;
  }

  #onPoint(index) {
    if (!this.#photo || index === null || this.#photo.state !== "captioned") {
      this.#heat.hide();
      const pointing = isTouch ? "Tap a word" : "Point at a word or press ← / →";
      byId("readout").textContent = `${pointing} to see its ${this.#hasMaps ? "attention map" : "probability"}.`;
      return;
    }
    const { words, grid } = this.#photo.captions[this.#photo.chosen];
    const map = this.#heads.mapOf(words[index]);
    if (map && !byId("photo").hidden) this.#light(map, grid.box, words[index].chosen);
    byId("readout").replaceChildren(...describe(words[index], map, this.#heads.head).flatMap((part) => {
      const span = document.createElement("span");
      span.textContent = part;
      return [span, " "];
    }));
  }

  #light(map, box, chosen) {
    this.#heat.show(map, box, chosen);
    const frame = byId("frame");
    const hidden = frame.scrollWidth - frame.clientWidth;
    if (hidden <= 0) return;
    const weights = map.flat();
    const column = weights.indexOf(Math.max(...weights)) % map[0].length;
    const peak = box[0] + ((column + 0.5) / map[0].length) * (box[2] - box[0]);
    const left = peak * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTo({ left, behavior: isStill.matches ? "instant" : "smooth" });
  }

  #setStrength() {
    byId("heat").style.setProperty("--strength", byId("strength").value / 100);
  }
}
