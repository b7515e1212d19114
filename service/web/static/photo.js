// One photograph on the page: its file, how far it has come, and what was said of it. Nothing of it is kept
// beyond the page.

import { startingText } from "./formats.js";

export class Photo {
  // waiting (its turn), sending, looking, held (the service is busy), captioned or failed
  state = "waiting";
  share = null; // of the file that is sent, while it is
  why = ""; // it failed, in a sentence
  isWorthRetrying = false;
  captions = []; // best first, as the service gave them
  chosen = 0; // which of them
  isEdited = false;
  #texts = []; // what the reader made of each

  constructor(file) {
    this.file = file;
    this.name = file.name || "photo";
    this.url = URL.createObjectURL(file);
  }

  // The chosen caption as the reader has left it.
  get text() {
    return this.#texts[this.chosen];
  }

  set text(text) {
    this.isEdited = true;
    this.#texts[this.chosen] = text;
  }

  receive(captions) {
    this.captions = captions;
    this.#texts = captions.map(({ caption }) => startingText(caption));
    this.state = "captioned";
  }

  fail(error) {
    this.state = "failed";
    this.why = error.message;
    this.isWorthRetrying = Boolean(error.isWorthRetrying);
  }

  release() {
    URL.revokeObjectURL(this.url);
  }
}
