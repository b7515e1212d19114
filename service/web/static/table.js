// Several photographs, a row each: what it is, its caption to edit, how far it is.

import { edit } from "./taking.js";
import { progressOf } from "./wording.js";

export class Table {
  #body;
  #template;
  #actions;
  #rows = new Map(); // photo to its row

  // `actions`: what to do with a photo on `open`, `retry` and `remove`.
  constructor(body, template, actions) {
    this.#body = body;
    this.#template = template;
    this.#actions = actions;
  }

  // Makes the rows those of `photos`; rows that stay are left alone, with whatever is being typed there.
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

  // Shows a photo's state, and its text as it is now.
  update(photo) {
    const row = this.#rows.get(photo);
    if (!row) return;
    const part = (name) => row.querySelector(`.${name}`);
    const field = row.querySelector("textarea");
    field.hidden = photo.state !== "captioned";
    if (!field.hidden) edit(field, part("length"), photo);
    part("why").textContent = photo.state === "failed" ? photo.why : "";
    part("state").textContent = progressOf(photo);
    part("open").ariaDisabled = photo.state === "failed" ? "true" : null; // there is nothing to see
    part("retry").hidden = !(photo.state === "failed" && photo.isWorthRetrying);
  }

  // Puts the focus on the row of a photo.
  focus(photo) {
    this.#rows.get(photo)?.querySelector(".open").focus();
  }

  #add(photo) {
    const row = this.#template.content.firstElementChild.cloneNode(true);
    row.querySelector("img").src = photo.url;
    row.querySelector("img").addEventListener("error", (event) => event.target.remove()); // not for this browser to show
    row.querySelector(".name").textContent = photo.name;
    row.querySelector("textarea").setAttribute("aria-label", `Caption of ${photo.name}`);
    for (const [name, act] of Object.entries(this.#actions)) {
      const button = row.querySelector(`.${name}`);
      button.addEventListener("click", () => act(photo));
      if (name !== "open") button.setAttribute("aria-label", `${button.textContent}: ${photo.name}`);
    }
    this.#rows.set(photo, row);
    this.#body.append(row);
    this.update(photo);
  }
}
