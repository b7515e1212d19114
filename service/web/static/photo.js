// One photo: its file, its progress and its captions. Kept in memory only.

import { altText } from "./formats.js";

export class Photo {
  state = "waiting"; // waiting, uploading, captioning, retrying (the service is busy), captioned or failed
  uploaded = null; // share of the file, 0 to 1, while uploading
  error = ""; // message, if it failed
  isRetryable = false;
  captions = []; // as returned by the service, best first
  labels = null; // what it shows, most probable first; null if the model has no labels
  chosen = 0; // index of the selected caption
  isEdited = false;
  #texts = []; // per caption, as edited by the user

  constructor(file) {
    this.file = file;
    this.name = file.name || "photo";
    this.url = URL.createObjectURL(file);
  }

  // The selected caption, as edited.
  get text() {
    return this.#texts[this.chosen];
  }

  set text(text) {
    this.isEdited = true;
    this.#texts[this.chosen] = text;
  }

  setResult({ captions, labels }) {
    this.captions = captions;
    this.labels = labels;
    this.#texts = captions.map(({ caption }) => altText(caption));
    this.state = "captioned";
  }

  fail(error) {
    this.state = "failed";
    this.error = error.message;
    this.isRetryable = Boolean(error.isRetryable);
  }

  release() {
    URL.revokeObjectURL(this.url);
  }
}
