// The photos of the page, captioned one at a time: the service has a queue of its own, shared with other clients.

import { postWithRetry } from "./api.js";
import { Photo } from "./photo.js";

export const NUM_CAPTIONS = 3;

export class Queue {
  photos = [];
  #onChange;
  #maxBytes;
  #preferred = null;
  #current = null;
  #request = null; // AbortController of the current request

  // `onChange` is called with a photo whenever its state changes.
  constructor(maxBytes, onChange) {
    this.#maxBytes = maxBytes;
    this.#onChange = onChange;
  }

  add(files) {
    const added = files.map((file) => new Photo(file));
    this.photos.push(...added);
    queueMicrotask(() => this.#run()); // after add() has returned
    return added;
  }

  // Captions this photo next.
  prioritize(photo) {
    this.#preferred = photo;
  }

  retry(photo) {
    this.#setState(photo, "waiting");
    this.#run();
  }

  remove(photo) {
    this.photos = this.photos.filter((other) => other !== photo);
    if (photo === this.#current) this.#request.abort();
    photo.release();
  }

  clear() {
    for (const photo of [...this.photos]) this.remove(photo);
  }

  async #run() {
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
      this.#setState(photo, "uploading");
      const fields = { num_captions: NUM_CAPTIONS, overlays: "none" };
      const response = await postWithRetry("/v1/captions", photo.file, fields, {
        signal,
        onProgress: (share) => this.#onProgress(photo, share),
        onWait: () => this.#setState(photo, "retrying"),
      });
      photo.setResult(response);
    } catch (error) {
      photo.fail(error);
    }
    if (!signal.aborted) this.#onChange(photo);
  }

  #onProgress(photo, share) {
    photo.uploaded = share;
    this.#setState(photo, share === null || share === 1 ? "captioning" : "uploading");
  }

  #setState(photo, state) {
    photo.state = state;
    this.#onChange(photo);
  }

  #checkSize(file) {
    if (file.size <= this.#maxBytes) return;
    const megabytes = (bytes) => `${Number((bytes / 1e6).toPrecision(3))} MB`;
    throw new Error(
      `This photo is too large (${megabytes(file.size)}); the limit is ${megabytes(this.#maxBytes)}.`);
  }
}
