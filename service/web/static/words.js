// The caption as a row of words: pointing at them, walking through them with the keys, playing them. What
// a word then shows is for `onPoint(index)`; null is none of them.

import { gaps } from "./wording.js";

const PLAY_STEP = 800; // milliseconds a word
const KEYS_OF_ITS_OWN = "input, textarea, select, video, #frame"; // they use the arrow keys themselves

export class Words {
  isActive = false; // whether the keys of the page are for it
  #caption;
  #heads;
  #button; // plays
  #onPoint;
  // Which word each way of pointing points at, or null; the first that is not null is shown.
  #pointed = { hovered: null, played: null, focused: null };
  #player = 0;

  constructor({ caption, heads, button, onPoint }) {
    this.#caption = caption;
    this.#heads = heads;
    this.#button = button;
    this.#onPoint = onPoint;
    this.#listen();
  }

  // `record`: a caption as the service gives it.
  write({ caption: text, words }) {
    const apart = gaps(text, words.map(({ word }) => word));
    this.#caption.replaceChildren(...words.flatMap(({ word }, i) => [...(apart[i] ? [" "] : []), wordButton(word, i)]));
    this.#caption.classList.toggle("dense", apart.slice(1).includes(false));
    this.stop();
  }

  get current() {
    return this.#pointed.hovered ?? this.#pointed.played ?? this.#pointed.focused;
  }

  // Back to the plain photograph.
  stop() {
    this.#pause();
    Object.assign(this.#pointed, { hovered: null, focused: null });
    this.#render();
  }

  #listen() {
    const caption = this.#caption;
    caption.addEventListener("pointerover", (event) => {
      const index = this.#at(event);
      if (index !== null) this.#point({ hovered: index }); // between two words the last one stays
    });
    caption.addEventListener("pointerleave", () => this.#point({ hovered: null }));
    caption.addEventListener("focusin", (event) => this.#point({ focused: this.#at(event) }));
    // A word stays chosen while its heads are looked through.
    for (const part of [caption, this.#heads]) {
      part.addEventListener("focusout", (event) => {
        if (!this.#heads.contains(event.relatedTarget)) this.#point({ focused: null });
      });
    }
    caption.addEventListener("click", (event) => event.target.closest("button")?.focus()); // Safari does not
    this.#button.addEventListener("click", () => (this.#player ? this.stop() : this.#play(0)));
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #at(event) {
    const index = [...this.#caption.children].indexOf(event.target.closest("#caption button"));
    return index < 0 ? null : index;
  }

  #point(change) {
    if (Object.values(change).some((index) => index !== null)) this.#pause();
    Object.assign(this.#pointed, change);
    this.#render();
  }

  #onKey(event) {
    if (!this.isActive || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") this.stop();
    if (event.target.closest?.(KEYS_OF_ITS_OWN)) return;
    const last = this.#caption.children.length - 1;
    const here = this.current;
    const goals = { ArrowRight: here === null ? 0 : Math.min(here + 1, last), ArrowLeft: Math.max((here ?? 1) - 1, 0) };
    if (this.#caption.contains(event.target)) Object.assign(goals, { Home: 0, End: last });
    if (!(event.key in goals)) return;
    event.preventDefault();
    this.#pointed.hovered = null;
    this.#caption.children[goals[event.key]]?.focus();
    this.#point({ focused: goals[event.key] }); // after Escape the word may have the focus already
  }

  #play(index) {
    if (index >= this.#caption.children.length) return this.stop();
    Object.assign(this.#pointed, { hovered: null, played: index });
    this.#player = setTimeout(() => this.#play(index + 1), PLAY_STEP);
    this.#render();
  }

  #pause() {
    clearTimeout(this.#player);
    this.#player = 0;
    this.#pointed.played = null;
  }

  #render() {
    const index = this.current;
    this.#button.textContent = this.#player ? "Stop" : "Play";
    this.#caption.classList.toggle("looking", index !== null);
    [...this.#caption.children].forEach((button, i) => {
      button.classList.toggle("current", i === index);
      if (index !== null) button.tabIndex = i === index ? 0 : -1;
    });
    this.#onPoint(index);
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
