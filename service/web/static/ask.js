// Questions to the service, with progress and with patience. Knows nothing of the page.

const PATIENCE = 300; // seconds to wait in all for a service that says it is busy
const BREAKS = 2; // connections that may break before it is said so
const PAUSE = 2; // seconds, where the service does not say how long to wait

// An answer that is none. `message` is a sentence for the reader, `retryAfter` seconds or null.
class Refusal extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.isBreak = status === 0;
    this.isWorthRetrying = this.isBreak || status === 429 || status >= 500;
    this.retryAfter = retryAfter;
  }
}

// As `ask`, but what is refused because the service is busy is asked again when it says. `onWait` is called
// before each wait.
export async function askPatiently(route, file, fields, { signal, onProgress, onWait } = {}) {
  await checkReadable(file);
  let waited = 0;
  let breaks = 0;
  for (;;) {
    try {
      return await ask(route, file, fields, signal, onProgress);
    } catch (error) {
      const mayMend = error.isBreak && !signal?.aborted && ++breaks <= BREAKS && (await answers());
      const seconds = mayMend ? PAUSE : error.retryAfter;
      if (signal?.aborted || !seconds || waited + seconds > PATIENCE) throw error;
      waited += seconds;
      onWait?.();
      await pause(seconds, signal);
    }
  }
}

// The answer as data, or as a Blob when it is a picture. Rejects with a sentence for the reader.
function ask(route, file, fields, signal, onProgress) {
  const form = new FormData();
  form.append("image", file, file.name || "photo");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return void reject(new Refusal("Cancelled."));
    const request = new XMLHttpRequest(); // fetch() does not tell how much of an upload is sent
    request.open("POST", route);
    request.responseType = "blob";
    request.upload.addEventListener("progress", (event) => onProgress?.(event.loaded / event.total));
    request.upload.addEventListener("load", () => onProgress?.(null));
    request.addEventListener("load", () => read(request).then(resolve, reject));
    request.addEventListener("error", () =>
      reject(new Refusal("The server is not responding. Is it still running?")));
    request.addEventListener("abort", () => reject(new Refusal("Cancelled.")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

async function read(request) {
  const kind = request.getResponseHeader("Content-Type") ?? "";
  const answer = kind.includes("json") ? JSON.parse(await request.response.text()) : request.response;
  if (request.status === 200) return answer;
  const { status } = request;
  const isBusy = status === 429 || status === 503;
  const retryAfter = Number(request.getResponseHeader("Retry-After")) || (isBusy ? PAUSE : null);
  throw new Refusal(answer.detail ?? `The server returned status ${status}.`, { status, retryAfter });
}

// A folder, or a file that has been moved since, cannot be sent, and the browser would not say why.
async function checkReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error("This file cannot be read. It may have been moved, or be a folder.");
  }
}

// Whether the service is there at all: a busy one may close a connection before it has read all of it.
async function answers() {
  try {
    return (await fetch("/healthz")).ok;
  } catch {
    return false;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Refusal("Cancelled."));
    });
  });
}
