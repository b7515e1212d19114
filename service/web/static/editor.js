// Editing, copying and saving captions.

import { postWithRetry } from "./api.js";
import { asCsv, asHtml, asMarkdown, fileName } from "./formats.js";
import { isTooLong, lengthLabel } from "./labels.js";
import { NUM_CAPTIONS } from "./queue.js";

const byId = (id) => document.getElementById(id);
const FORMATS = { text: (text) => text, html: asHtml, markdown: asMarkdown };
const COPIED_DURATION = 1500; // milliseconds for which a button reads "Copied"

// Binds a text field, and the line that shows its length, to the text of a photo.
export function bindText(field, lengthLine, photo) {
  const updateLength = () => {
    lengthLine.textContent = lengthLabel(field.value);
    lengthLine.classList.toggle("long", isTooLong(field.value));
  };
  field.value = photo.text;
  field.oninput = () => {
    photo.text = field.value;
    updateLength();
  };
  updateLength();
}

export function saveCsv(photos) {
  const rows = photos.filter((photo) => photo.state === "captioned");
  saveBlob(new Blob([asCsv(rows)], { type: "text/csv" }), "captions.csv");
}

export class Editor {
  #photo = null;
  #announce = null;

  constructor() {
    for (const button of document.querySelectorAll(".copy")) {
      button.addEventListener("click", () => this.#copy(button));
    }
    byId("sheet").addEventListener("click", () => this.#save(byId("sheet"), saveSheet));
    byId("gif").addEventListener("click", () => this.#save(byId("gif"), saveAnimation));
    byId("csv").addEventListener("click", () => saveCsv([this.#photo]));
  }

  // `announce` passes a message to screen readers.
  show(photo, announce) {
    this.#photo = photo;
    this.#announce = announce;
    bindText(byId("text"), byId("length"), photo);
    byId("gif").hidden = photo.chosen !== 0; // the service only animates the best caption
  }

  async #copy(button) {
    const { text, name } = this.#photo;
    const label = (button.dataset.label ??= button.textContent);
    const isCopied = await copyToClipboard(FORMATS[button.dataset.form](text, name));
    this.#announce(isCopied ? "Copied." : "");
    if (!isCopied) byId("problem").textContent = "The browser blocked copying. Select the text and copy it yourself.";
    else button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), COPIED_DURATION);
  }

  async #save(button, save) {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // unlike `disabled`, keeps the focus
    byId("problem").textContent = "";
    this.#announce("Preparing the file.");
    try {
      await save(this.#photo);
      this.#announce("Saved.");
    } catch (error) {
      byId("problem").textContent = error.message;
    } finally {
      button.ariaDisabled = null;
    }
  }
}

async function saveSheet({ file, name, chosen }) {
  const response = await postWithRetry("/v1/captions", file, { num_captions: NUM_CAPTIONS, overlays: "sheet" });
  download(response.captions[chosen].sheet, fileName(name, "sheet.jpg"));
}

async function saveAnimation({ file, name }) {
  saveBlob(await postWithRetry("/v1/overlays", file, { format: "gif" }), fileName(name, "animation.gif"));
}

function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  download(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function download(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

// Returns whether it succeeded. navigator.clipboard is undefined on plain HTTP, except on localhost.
async function copyToClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const onCopy = (event) => {
      event.clipboardData.setData("text/plain", text);
      event.preventDefault();
    };
    document.addEventListener("copy", onCopy);
    const isCopied = document.execCommand("copy");
    document.removeEventListener("copy", onCopy);
    return isCopied;
  }
}
