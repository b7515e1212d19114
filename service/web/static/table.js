// The table of several photos: one row each, with an editable caption and a status.

import { bindText } from "./editor.js";
import { statusOf } from "./labels.js";

export class Table {
  #body;
  #template;
  #actions;
  #rows = new Map(); // photo to row

  // `actions`: handlers, called with a photo, of the buttons `open`, `retry` and `remove`.
  constructor(body, template, actions) {
    this.#body = body;
    this.#template = template;
    this.#actions = actions;
  }

  // Adds and removes rows to match `photos`. Existing rows are not touched, so that typing is not interrupted.
  show(photos) {
    for (const [photo, row] of this.#rows) {
      if (photos.includes(photo)) continue;
      row.remove();
      this.#rows.delete(photo);
    }
    for (const photo of photos) {
      if (!this.#rows.has(photo)) this.#add(photo);
    }
  }

  // Shows the current state and text of a photo.
  update(photo) {
    const row = this.#rows.get(photo);
    if (!row) return;
    const part = (name) => row.querySelector(`.${name}`);
    const field = row.querySelector("textarea");
    field.hidden = photo.state !== "captioned";
    if (!field.hidden) bindText(field, part("length"), photo);
    part("error").textContent = photo.state === "failed" ? photo.error : "";
    part("state").textContent = statusOf(photo);
    part("open").ariaDisabled = photo.state === "failed" ? "true" : null;
    part("retry").hidden = !(photo.state === "failed" && photo.isRetryable);
  }

  // Focuses the row of a photo.
  focus(photo) {
    this.#rows.get(photo)?.querySelector(".open").focus();
  }

  #add(photo) {
    const row = this.#template.content.firstElementChild.cloneNode(true);
    row.querySelector("img").src = photo.url;
    row.querySelector("img").addEventListener("error", (event) => event.target.remove()); // not supported by this browser
    row.querySelector(".name").textContent = photo.name;
    row.querySelector("textarea").setAttribute("aria-label", `Caption of ${photo.name}`);
    for (const [name, action] of Object.entries(this.#actions)) {
      const button = row.querySelector(`.${name}`);
      button.addEventListener("click", () => action(photo));
      if (name !== "open") button.setAttribute("aria-label", `${button.textContent}: ${photo.name}`);
    }
    this.#rows.set(photo, row);
    this.#body.append(row);
    this.update(photo);
  }
}
