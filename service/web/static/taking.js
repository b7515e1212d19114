// What people take away: the caption as they have edited it, copied or saved.

import { askPatiently } from "./ask.js";
import { asCsv, asHtml, asMarkdown, fileName } from "./formats.js";
import { CAPTIONS } from "./queue.js";
import { ADVISED_LENGTH, lengthOf } from "./wording.js";

const byId = (id) => document.getElementById(id);
const FORMS = { text: (text) => text, html: asHtml, markdown: asMarkdown };
const COPIED = 1500; // milliseconds that a button says so

// Keeps a text field and the line about its length with the text of a photo.
export function edit(field, line, photo) {
  const measure = () => {
    line.textContent = lengthOf(field.value);
    line.classList.toggle("long", [...field.value].length > ADVISED_LENGTH);
  };
  field.value = photo.text;
  field.oninput = () => {
    photo.text = field.value;
    measure();
  };
  measure();
}

export function saveCsv(photos) {
  const rows = photos.filter((photo) => photo.state === "captioned");
  saveBlob(new Blob([asCsv(rows)], { type: "text/csv" }), "captions.csv");
}

export class Taking {
  #photo = null;
  #announce = null;

  constructor() {
    for (const button of document.querySelectorAll(".copy")) {
      button.addEventListener("click", () => this.#copy(button));
    }
    byId("sheet").addEventListener("click", () => this.#fetch(byId("sheet"), saveSheet));
    byId("gif").addEventListener("click", () => this.#fetch(byId("gif"), saveWalk));
    byId("csv").addEventListener("click", () => saveCsv([this.#photo]));
  }

  // `announce` tells a sentence to those who do not see that something has happened.
  offer(photo, announce) {
    this.#photo = photo;
    this.#announce = announce;
    edit(byId("text"), byId("length"), photo);
    byId("gif").hidden = photo.chosen !== 0; // the service draws the walk for the best caption only
  }

  async #copy(button) {
    const { text, name } = this.#photo;
    const label = (button.dataset.label ??= button.textContent);
    const isCopied = await copied(FORMS[button.dataset.form](text, name));
    this.#announce(isCopied ? "Copied." : "");
    if (!isCopied) byId("problem").textContent = "The browser blocked copying. Select the text and copy it yourself.";
    else button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), COPIED);
  }

  async #fetch(button, work) {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // unlike `disabled` it leaves the focus where it is
    byId("problem").textContent = "";
    this.#announce("Preparing the file.");
    try {
      await work(this.#photo);
      this.#announce("Saved.");
    } catch (error) {
      byId("problem").textContent = error.message;
    } finally {
      button.ariaDisabled = null;
    }
  }
}

async function saveSheet({ file, name, chosen }) {
  const answer = await askPatiently("/v1/captions", file, { num_captions: CAPTIONS, overlays: "sheet" });
  save(answer.captions[chosen].sheet, fileName(name, "sheet.jpg"));
}

async function saveWalk({ file, name }) {
  saveBlob(await askPatiently("/v1/overlays", file, { format: "gif" }), fileName(name, "animation.gif"));
}

function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function save(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

// Whether `text` is on the clipboard now. On plain HTTP from another computer there is only the old way.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const put = (event) => {
      event.clipboardData.setData("text/plain", text);
      event.preventDefault();
    };
    document.addEventListener("copy", put);
    const isDone = document.execCommand("copy");
    document.removeEventListener("copy", put);
    return isDone;
  }
}
