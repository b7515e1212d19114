// Numbers of a caption in words for its reader.

export function percent(share) {
  if (share < 0.0001) return "< 0.01 %";
  return `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })} %`;
}

// What is known of a word, in parts. `map` is the one that is shown, and `head` whose it is: from 0, or null
// for all. What a model does not have, the record leaves out or null.
export function describe({ attention, log_prob: logProb, beta, sentinel, chosen }, map, head) {
  const parts = [];
  if (attention) parts.push(`${head === null ? "" : `head ${head + 1}: `}attention ${placeOf(map)}`);
  if (chosen) parts.push("outlined cell only");
  if (sentinel !== undefined) parts.push(`sentinel ${percent(sentinel)}`);
  parts.push(`probability ${percent(Math.exp(logProb))}`);
  if (beta !== null) parts.push(`gate (β) ${percent(beta)}`);
  return parts;
}

// Where most of the attention lies, in words, for those who cannot see the heat.
export function placeOf(attention) {
  const weights = attention.flat();
  const peak = Math.max(...weights);
  if (peak * weights.length < 2) return "spread out";
  const columns = attention[0].length;
  const third = (position, count) => Math.floor(((position + 0.5) / count) * 3);
  const row = third(Math.floor(weights.indexOf(peak) / columns), attention.length);
  const column = third(weights.indexOf(peak) % columns, columns);
  if (row === 1 && column === 1) return "at the centre";
  if (row === 1) return column ? "on the right" : "on the left";
  return `at the ${row ? "bottom" : "top"}${["left", "", "right"][column] && ` ${["left", "", "right"][column]}`}`;
}

// Whether a space stands before each word, by the text they make: a model may write characters or pieces.
export function gaps(text, words) {
  let end = 0; // of the word before
  return words.map((word) => {
    const start = word.trim() ? text.indexOf(word, end) : end;
    if (!text.startsWith(word, start)) return false; // a space, say, that the text has left out
    const isApart = /\s/.test(text.slice(end, start));
    end = start + word.length;
    return isApart;
  });
}

export function progressOf({ state, share }) {
  if (state === "sending" && share !== null) return `uploading, ${Math.round(100 * share)} %`;
  return { sending: "uploading", held: "server busy, retrying", looking: "captioning" }[state] ?? state;
}

export const ADVISED_LENGTH = 125; // characters of a text alternative

// How long a text alternative is, and whether that is longer than it is good for listeners.
export function lengthOf(text) {
  const count = [...text].length;
  const characters = `${count} character${count === 1 ? "" : "s"}`;
  return count > ADVISED_LENGTH
    ? `${characters}, more than the recommended ${ADVISED_LENGTH}`
    : `${characters} (recommended: up to ${ADVISED_LENGTH})`;
}

// How far several photographs are.
export function tallyOf(photos) {
  const count = (state) => photos.filter((photo) => photo.state === state).length;
  const failed = count("failed");
  return `${count("captioned")} of ${photos.length} captioned${failed ? `, ${failed} failed` : ""}`;
}
