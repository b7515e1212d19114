// A caption in the formats in which it is copied and saved. Independent of the page.

// A caption as alternative text: capitalized, without a full stop.
export function altText(caption) {
  const text = caption.trim().replace(/[\s.]+$/, "");
  const [first = ""] = text; // a code point, which may be two code units
  return first.toLocaleUpperCase() + text.slice(first.length);
}

export function asHtml(text, name) {
  return `<img src="${escaped(encodeURIComponent(name))}" alt="${escaped(singleLine(text))}">`;
}

export function asMarkdown(text, name) {
  const url = encodeURIComponent(name).replace(/[()]/g, (bracket) => (bracket === "(" ? "%28" : "%29"));
  return `![${singleLine(text).replace(/[\\`*_[\]<>&!]/g, "\\$&")}](${url})`;
}

// Rows of `name` and `text` as CSV with the columns image,caption, as read by training.fit. Starts with a byte order
// mark, without which spreadsheets do not detect UTF-8.
export function asCsv(rows) {
  const lines = rows.map(({ name, text }) => [withoutFormula(name, "./"), withoutFormula(singleLine(text), "'")]);
  return "\ufeff" + [["image", "caption"], ...lines].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

// Prevents formula injection: spreadsheets evaluate cells that begin with these characters. A file name still names the
// same file with "./" in front; other cells get an apostrophe, which marks them as text.
function withoutFormula(cell, prefix) {
  return /^[=+\-@\t\r]/.test(cell) ? prefix + cell : cell;
}

const quoted = (cell) => (/[",\r\n]/.test(cell) || cell !== cell.trim() ? `"${cell.replaceAll('"', '""')}"` : cell);
const singleLine = (text) => text.trim().replace(/\s+/g, " ");

function escaped(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (character) => entities[character]);
}

// The file name of a download made from the photo `name`.
export function fileName(name, suffix) {
  return `${name.replace(/\.[^.]*$/, "")}-${suffix}`;
}
