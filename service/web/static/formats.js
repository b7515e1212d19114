// A caption in the forms people paste and save. Knows nothing of the page.

// A caption as the start of a text alternative: with a capital, and without a stop.
export function startingText(caption) {
  const text = caption.trim().replace(/[\s.]+$/, "");
  const [first = ""] = text; // a whole character, also where it takes two code units
  return first.toLocaleUpperCase() + text.slice(first.length);
}

export function asHtml(text, name) {
  return `<img src="${escaped(encodeURIComponent(name))}" alt="${escaped(oneLine(text))}">`;
}

export function asMarkdown(text, name) {
  const address = encodeURIComponent(name).replace(/[()]/g, (mark) => (mark === "(" ? "%28" : "%29"));
  return `![${oneLine(text).replace(/[\\`*_[\]<>&!]/g, "\\$&")}](${address})`;
}

// Rows of `name` and `text` as CSV with the columns image,caption, which training.fit reads too. It starts
// with a byte order mark, without which spreadsheets take UTF-8 for something else.
export function asCsv(rows) {
  const lines = rows.map(({ name, text }) => [harmless(name, "./"), harmless(oneLine(text), "'")]);
  return "\ufeff" + [["image", "caption"], ...lines].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

// A spreadsheet runs cells that begin like this. "./" before a file name leaves it the same file; before
// anything else stands the apostrophe that spreadsheets take for "this is text".
function harmless(cell, prefix) {
  return /^[=+\-@\t\r]/.test(cell) ? prefix + cell : cell;
}

const quoted = (cell) => (/[",\r\n]/.test(cell) || cell !== cell.trim() ? `"${cell.replaceAll('"', '""')}"` : cell);
const oneLine = (text) => text.trim().replace(/\s+/g, " ");

function escaped(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (mark) => names[mark]);
}

// The name of a file made from the photograph called `name`.
export function fileName(name, ending) {
  return `${name.replace(/\.[^.]*$/, "")}-${ending}`;
}
