// The photographs of the page, captioned one at a time: the service has its own queue, and others wait there too.

import { askPatiently } from "./ask.js";
import { Photo } from "./photo.js";

export const CAPTIONS = 3;

export class Queue {
  photos = [];
  #onChange;
  #maxBytes;
  #preferred = null;
  #current = null;
  #request = null; // AbortController of the request under way

  // `onChange` is called with a photo whenever its state has changed.
  constructor(maxBytes, onChange) {
    this.#maxBytes = maxBytes;
    this.#onChange = onChange;
  }

  add(files) {
    const added = files.map((file) => new Photo(file));
    this.photos.push(...added);
    queueMicrotask(() => this.#work()); // after the caller has them
    return added;
  }

  // The photo that is looked at comes first.
  prefer(photo) {
    this.#preferred = photo;
  }

  retry(photo) {
    this.#enter(photo, "waiting");
    this.#work();
  }

  remove(photo) {
    this.photos = this.photos.filter((other) => other !== photo);
    if (photo === this.#current) this.#request.abort();
    photo.release();
  }

  clear() {
    for (const photo of [...this.photos]) this.remove(photo);
  }

  async #work() {
    if (this.#current) return;
    while ((this.#current = this.#next())) await this.#caption(this.#current);
  }

  #next() {
    const waiting = this.photos.filter((photo) => photo.state === "waiting");
    return waiting.find((photo) => photo === this.#preferred) ?? waiting[0] ?? null;
  }

  async #caption(photo) {
    const { signal } = (this.#request = new AbortController());
    try {
      this.#checkSize(photo.file);
      this.#enter(photo, "sending");
      const answer = await askPatiently("/v1/captions", photo.file, { num_captions: CAPTIONS, overlays: "none" }, {
        signal,
        onProgress: (share) => this.#progress(photo, share),
        onWait: () => this.#enter(photo, "held"),
      });
      photo.receive(answer.captions);
    } catch (error) {
      photo.fail(error);
    }
    if (!signal.aborted) this.#onChange(photo);
  }

  #progress(photo, share) {
    photo.share = share;
    this.#enter(photo, share === null || share === 1 ? "looking" : "sending");
  }

  #enter(photo, state) {
    photo.state = state;
    this.#onChange(photo);
  }

  #checkSize(file) {
    if (file.size <= this.#maxBytes) return;
    const size = (bytes) => `${Number((bytes / 1e6).toPrecision(3))} MB`;
    throw new Error(`This photo is too large (${size(file.size)}); the limit is ${size(this.#maxBytes)}.`);
  }
}
