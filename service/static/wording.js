// Numbers of a caption in words for its reader.

export function percent(share) {
  if (share < 0.0001) return "< 0.01 %";
  return `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })} %`;
}

// What is known of a word, in parts. `map` is the one that is shown, and `head` whose it is: from 0, or null
// for all. What a model does not have, the record leaves out or null.
export function describe({ attention, log_prob: logProb, beta, sentinel, chosen }, map, head) {
  const parts = [];
  if (attention) parts.push(`${head === null ? "" : `head ${head + 1} `}looked ${placeOf(map)}`);
  if (chosen) parts.push("used the outlined cell alone");
  if (sentinel !== undefined) parts.push(`kept ${percent(sentinel)} off the photograph`);
  parts.push(`probability ${percent(Math.exp(logProb))}`);
  if (beta !== null) parts.push(`let in ${percent(beta)} of what it saw (β)`);
  return parts;
}

// Where most of the attention lies, in words, for those who cannot see the heat.
export function placeOf(attention) {
  const weights = attention.flat();
  const peak = Math.max(...weights);
  if (peak * weights.length < 2) return "all over";
  const columns = attention[0].length;
  const third = (position, count) => Math.floor(((position + 0.5) / count) * 3);
  const row = third(Math.floor(weights.indexOf(peak) / columns), attention.length);
  const column = third(weights.indexOf(peak) % columns, columns);
  if (row === 1 && column === 1) return "at the centre";
  if (row === 1) return column ? "on the right" : "on the left";
  return `at the ${row ? "bottom" : "top"}${["left", "", "right"][column] && ` ${["left", "", "right"][column]}`}`;
}
