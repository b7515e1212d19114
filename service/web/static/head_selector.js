// Selects which map of a word is shown with multi-head attention: the mean, or one head.

export class HeadSelector {
  #fieldset;
  #onChange;
  head = null; // counted from 0; null is the mean

  constructor(fieldset, onChange) {
    this.#fieldset = fieldset;
    this.#onChange = onChange;
    // Clicking a label would move the focus away from the current word.
    fieldset.addEventListener("mousedown", (event) => event.preventDefault());
  }

  // Resets to the mean; `count` is 0 for a model without heads.
  reset(count) {
    this.head = null;
    const heads = Array.from({ length: count }, (_, head) => this.#option(head));
    this.#fieldset.replaceChildren(this.#fieldset.firstElementChild, this.#option(null), ...heads);
    this.#fieldset.hidden = count === 0;
  }

  // The selected map of a word, or null if it has none.
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
