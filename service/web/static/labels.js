// Texts shown on the page: probabilities, maps, progress, lengths.

export function percent(share) {
  if (share < 0.0001) return "< 0.01%";
  return `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })}%`;
}

// Captions are called sure and fairly sure from these confidences on. On photos that nothing was learnt from, 87% of
// the sure captions of the shipped model were right, 63% of the fairly sure ones, and 33% of the others.
const SURE = 0.75;
const FAIRLY_SURE = 0.5;

// The confidence of a caption in words; empty if the model has none.
export function confidenceLabel(confidence) {
  if (confidence === null) return "";
  if (confidence >= SURE) return "sure";
  return confidence >= FAIRLY_SURE ? "fairly sure" : "not sure: please check";
}

// The labels of a photo as keywords, or, beside a caption of low confidence, as a hint; empty if there are none.
export function labelsText(labels, confidence) {
  if (!labels?.length) return "";
  const isHint = confidence !== null && confidence < FAIRLY_SURE;
  return `${isHint ? "It may show" : "Keywords"}: ${labels.map(({ label }) => label).join(", ")}`;
}

// What is known about a word, in parts. `map` is the map on display, `head` its head: counted from 0, or null for the
// mean. Fields that the model does not provide are missing or null in the record.
export function describeWord({ attention, log_prob: logProb, beta, sentinel, chosen }, map, head) {
  const parts = [];
  if (attention) parts.push(`${head === null ? "" : `head ${head + 1}: `}attention ${peakLocation(map)}`);
  if (chosen) parts.push("outlined cell only");
  if (sentinel !== undefined) parts.push(`sentinel ${percent(sentinel)}`);
  parts.push(`probability ${percent(Math.exp(logProb))}`);
  if (beta !== null) parts.push(`gate (β) ${percent(beta)}`);
  return parts;
}

// The location of the peak of a map in words, for users who cannot see the heat map.
function peakLocation(attention) {
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

// For each word, whether a space precedes it in the text: the tokens of a model may be characters or subwords.
export function precedingSpaces(text, words) {
  let end = 0; // of the previous word
  return words.map((word) => {
    const start = word.trim() ? text.indexOf(word, end) : end;
    if (!text.startsWith(word, start)) return false; // e.g. a space that is not part of the text
    const hasSpace = /\s/.test(text.slice(end, start));
    end = start + word.length;
    return hasSpace;
  });
}

export function statusOf({ state, uploaded, captions, chosen }) {
  if (state === "uploading" && uploaded !== null) return `uploading, ${Math.round(100 * uploaded)}%`;
  if (state === "captioned") return ["captioned", confidenceLabel(captions[chosen].confidence)].filter(Boolean).join(", ");
  return { retrying: "server busy, retrying" }[state] ?? state;
}

const RECOMMENDED_LENGTH = 125; // characters, of alternative text

export function isTooLong(text) {
  return [...text].length > RECOMMENDED_LENGTH;
}

export function lengthLabel(text) {
  const count = [...text].length;
  const characters = `${count} character${count === 1 ? "" : "s"}`;
  return isTooLong(text)
    ? `${characters}, more than the recommended ${RECOMMENDED_LENGTH}`
    : `${characters} (recommended: up to ${RECOMMENDED_LENGTH})`;
}

// The progress of several photos.
export function summaryOf(photos) {
  const count = (state) => photos.filter((photo) => photo.state === state).length;
  const failed = count("failed");
  return `${count("captioned")} of ${photos.length} captioned${failed ? `, ${failed} failed` : ""}`;
}
