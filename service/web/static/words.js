// The caption as a row of words that can be hovered, focused, stepped through with the arrow keys, and played.

import { precedingSpaces } from "./labels.js";

const PLAY_INTERVAL = 800; // milliseconds per word
const HANDLES_ARROW_KEYS = "input, textarea, select, video, #frame";

export class Words {
  isActive = false; // whether the words respond to keys
  #caption;
  #heads;
  #playButton;
  #onSelect;
  // The word selected in each way, or null; the first that is not null is current.
  #selected = { hovered: null, played: null, focused: null };
  #timer = 0;

  // `onSelect` is called with the index of the current word, or null.
  constructor({ caption, heads, playButton, onSelect }) {
    this.#caption = caption;
    this.#heads = heads;
    this.#playButton = playButton;
    this.#onSelect = onSelect;
    this.#listen();
  }

  // `record`: a caption as returned by the service.
  show({ caption: text, words }) {
    const spaces = precedingSpaces(text, words.map(({ word }) => word));
    this.#caption.replaceChildren(
      ...words.flatMap(({ word }, i) => [...(spaces[i] ? [" "] : []), wordButton(word, i)]));
    this.#caption.classList.toggle("subwords", spaces.slice(1).includes(false));
    this.reset();
  }

  get current() {
    return this.#selected.hovered ?? this.#selected.played ?? this.#selected.focused;
  }

  // Deselects all words.
  reset() {
    this.#pause();
    Object.assign(this.#selected, { hovered: null, focused: null });
    this.#render();
  }

  #listen() {
    const caption = this.#caption;
    caption.addEventListener("pointerover", (event) => {
      const index = this.#indexOf(event);
      if (index !== null) this.#select({ hovered: index }); // between two words the last one stays selected
    });
    caption.addEventListener("pointerleave", () => this.#select({ hovered: null }));
    caption.addEventListener("focusin", (event) => this.#select({ focused: this.#indexOf(event) }));
    // A word stays selected while the focus is on the head selector.
    for (const part of [caption, this.#heads]) {
      part.addEventListener("focusout", (event) => {
        if (!this.#heads.contains(event.relatedTarget)) this.#select({ focused: null });
      });
    }
    caption.addEventListener("click", (event) => event.target.closest("button")?.focus()); // Safari does not
    this.#playButton.addEventListener("click", () => (this.#timer ? this.reset() : this.#play(0)));
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #indexOf(event) {
    const index = [...this.#caption.children].indexOf(event.target.closest("#caption button"));
    return index < 0 ? null : index;
  }

  #select(change) {
    if (Object.values(change).some((index) => index !== null)) this.#pause();
    Object.assign(this.#selected, change);
    this.#render();
  }

  #onKey(event) {
    if (!this.isActive || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") this.reset();
    if (event.target.closest?.(HANDLES_ARROW_KEYS)) return;
    const last = this.#caption.children.length - 1;
    const { current } = this;
    const targets = {
      ArrowRight: current === null ? 0 : Math.min(current + 1, last),
      ArrowLeft: Math.max((current ?? 1) - 1, 0),
    };
    if (this.#caption.contains(event.target)) Object.assign(targets, { Home: 0, End: last });
    if (!(event.key in targets)) return;
    event.preventDefault();
    this.#selected.hovered = null;
    this.#caption.children[targets[event.key]]?.focus();
    this.#select({ focused: targets[event.key] }); // no focus event if the word is focused already, as after Escape
  }

  #play(index) {
    if (index >= this.#caption.children.length) return this.reset();
    Object.assign(this.#selected, { hovered: null, played: index });
    this.#timer = setTimeout(() => this.#play(index + 1), PLAY_INTERVAL);
    this.#render();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#selected.played = null;
  }

  #render() {
    const index = this.current;
    this.#playButton.textContent = this.#timer ? "Stop" : "Play";
    this.#caption.classList.toggle("has-current", index !== null);
    [...this.#caption.children].forEach((button, i) => {
      button.classList.toggle("current", i === index);
      if (index !== null) button.tabIndex = i === index ? 0 : -1;
    });
    this.#onSelect(index);
  }
}

function wordButton(word, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = word;
  if (!word.trim()) button.setAttribute("aria-label", "space");
  button.tabIndex = index ? -1 : 0;
  button.setAttribute("aria-describedby", "readout");
  return button;
}
