// The view of one photo: its progress, and then its caption with an attention map for every word.

import { Editor } from "./editor.js";
import { HeadSelector } from "./head_selector.js";
import { HeatMap } from "./heatmap.js";
import { confidenceLabel, describeWord, labelsText, percent } from "./labels.js";
import { Words } from "./words.js";

const byId = (id) => document.getElementById(id);
const isTouch = matchMedia("(hover: none)").matches;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class View {
  #heatMap = new HeatMap(byId("heat"));
  #heads = new HeadSelector(byId("heads"), () => this.#showWord(this.#words.current));
  #editor = new Editor();
  #announce;
  #photo = null;
  #words;
  #hasMaps = true; // whether the model has attention maps

  constructor(announce) {
    this.#announce = announce;
    const elements = { caption: byId("caption"), heads: byId("heads"), playButton: byId("play") };
    this.#words = new Words({ ...elements, onSelect: (index) => this.#showWord(index) });
    byId("photo").addEventListener("click", () => this.#words.reset());
    byId("opacity").addEventListener("input", () => this.#setOpacity());
    addEventListener("resize", () => this.#updateScrolling());
  }

  // The photo in the view, or null while the view is closed.
  set photo(photo) {
    if (photo === this.#photo) return;
    this.#photo = photo;
    this.#words.isActive = false;
    this.#words.reset();
    if (photo) this.#showPhoto(photo);
    if (photo?.state === "captioned") this.#showResult();
  }

  // To be called when the state of the photo has changed.
  update() {
    if (this.#photo.state === "captioned") this.#showResult();
    else this.#showProgress();
  }

  async #showPhoto(photo) {
    this.#showProgress();
    const [image, box] = [byId("image"), byId("photo")];
    Object.assign(image, { src: photo.url, alt: "" });
    box.hidden = true;
    try {
      await image.decode();
    } catch {
      return; // not supported by this browser; the service may still accept it
    }
    if (photo !== this.#photo) return;
    box.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    box.hidden = false;
    this.#heatMap.setPhoto(image);
    this.#updateScrolling();
    this.#showWord(this.#words.current);
  }

  // A photo much wider than the page scrolls inside its frame, which must then be focusable for keyboard users.
  #updateScrolling() {
    const frame = byId("frame");
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  }

  #showProgress() {
    const { state, uploaded } = this.#photo;
    byId("step").textContent = {
      waiting: "Waiting…",
      uploading: "Uploading…",
      retrying: "The server is busy. Retrying…",
    }[state] ?? "Captioning…";
    if (state === "uploading" && uploaded !== null) byId("progress").value = uploaded;
    else byId("progress").removeAttribute("value");
  }

  #showResult() {
    const { captions, chosen } = this.#photo;
    const words = captions.flatMap((caption) => caption.words);
    this.#hasMaps = words.every((word) => word.attention !== null);
    byId("no-map").hidden = this.#hasMaps;
    byId("map-tools").hidden = !this.#hasMaps;
    const alternatives = byId("alternatives");
    alternatives.replaceChildren(alternatives.firstElementChild, ...captions.map((_, i) => this.#alternative(i)));
    alternatives.hidden = captions.length < 2;
    this.#words.isActive = true;
    this.#choose(chosen);
  }

  #choose(index) {
    this.#photo.chosen = index;
    const record = this.#photo.captions[index];
    this.#heads.reset(record.words[0]?.heads?.length ?? 0);
    this.#words.show(record);
    this.#editor.show(this.#photo, this.#announce);
    byId("image").alt = record.caption;
    const label = this.#showConfidence(record.confidence);
    const labels = this.#showLabels(this.#photo.labels, record.confidence);
    this.#announce(`Caption: ${record.caption}.${label && ` Confidence: ${label}.`}${labels && ` ${labels}.`}`);
  }

  // Shows the confidence of the caption in words; returns them.
  #showConfidence(confidence) {
    const label = confidenceLabel(confidence);
    byId("confidence").hidden = !label;
    byId("confidence-label").textContent = label;
    byId("confidence-percent").textContent = label && `(${percent(confidence)} likely to be right)`;
    byId("confidence").title = label && `${percent(confidence)} likely to be right`;
    return label;
  }

  // Shows the labels of the photo, as a hint beside a caption of low confidence; returns them as text.
  #showLabels(labels, confidence) {
    const text = labelsText(labels, confidence);
    byId("labels").hidden = !text;
    byId("labels").textContent = text;
    byId("labels").title = text && labels.map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ");
    return text;
  }

  #alternative(index) {
    const { caption: text, log_prob: logProb, words } = this.#photo.captions[index];
    const label = document.createElement("label");
    const checked = index === this.#photo.chosen;
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "alternative", checked });
    input.addEventListener("change", () => this.#choose(index));
    const probability = document.createElement("output");
    // The probability of a whole caption is tiny; the geometric mean per token (including the end token) is readable.
    probability.textContent = `${percent(Math.exp(logProb / (words.length + 1)))} per word`;
    label.append(input, text, probability);
    return label;
  }

  // Shows the map and the values of a word, or a hint if `index` is null.
  #showWord(index) {
    if (!this.#photo || index === null || this.#photo.state !== "captioned") {
      this.#heatMap.hide();
      const action = isTouch ? "Tap a word" : "Point at a word or press ← / →";
      byId("readout").textContent = `${action} to see its ${this.#hasMaps ? "attention map" : "probability"}.`;
      return;
    }
    const { words, grid } = this.#photo.captions[this.#photo.chosen];
    const map = this.#heads.mapOf(words[index]);
    if (map && !byId("photo").hidden) this.#showMap(map, grid.box, words[index].chosen);
    byId("readout").replaceChildren(...describeWord(words[index], map, this.#heads.head).flatMap((part) => {
      const span = document.createElement("span");
      span.textContent = part;
      return [span, " "];
    }));
  }

  // Draws a map and, if the frame scrolls, scrolls to its peak.
  #showMap(map, box, chosen) {
    this.#heatMap.show(map, box, chosen);
    const frame = byId("frame");
    if (frame.scrollWidth <= frame.clientWidth) return;
    const weights = map.flat();
    const column = weights.indexOf(Math.max(...weights)) % map[0].length;
    const peak = box[0] + ((column + 0.5) / map[0].length) * (box[2] - box[0]);
    const left = peak * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTo({ left, behavior: reducedMotion.matches ? "instant" : "smooth" });
  }

  #setOpacity() {
    byId("heat").style.setProperty("--opacity", byId("opacity").value / 100);
  }
}
