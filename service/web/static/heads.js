// Which of a word's maps is shown, where attention has several heads: their mean, or one of them.

export class HeadChoice {
  #fieldset;
  #onChange;
  head = null; // counted from 0; null is the mean

  constructor(fieldset, onChange) {
    this.#fieldset = fieldset;
    this.#onChange = onChange;
    // A press on a label would take the focus from the word whose heads are looked through.
    fieldset.addEventListener("mousedown", (event) => event.preventDefault());
  }

  // Begins anew, with the mean; `count` is 0 where attention has no heads.
  offer(count) {
    this.head = null;
    const heads = Array.from({ length: count }, (_, head) => this.#option(head));
    this.#fieldset.replaceChildren(this.#fieldset.firstElementChild, this.#option(null), ...heads);
    this.#fieldset.hidden = count === 0;
  }

  // The map to show of a word, or null if it has none.
  mapOf(word) {
    return this.head === null ? word.attention : word.heads[this.head];
  }

  #option(head) {
    const label = document.createElement("label");
    const checked = head === this.head;
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "head", checked });
    input.addEventListener("change", () => {
      this.head = head;
      this.#onChange();
    });
    label.append(input, head === null ? "mean" : String(head + 1));
    return label;
  }
}
