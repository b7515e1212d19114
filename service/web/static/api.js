// Requests to the service, with upload progress and retries. Independent of the page.

const MAX_WAIT = 300; // seconds, in total, while the service is busy
const MAX_CONNECTION_ERRORS = 2; // per request, before giving up
const DEFAULT_DELAY = 2; // seconds before a retry, unless the service sends Retry-After

// A failed request. `message` is shown to the user; `retryAfter` is in seconds, or null.
class RequestError extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.isConnectionError = status === 0;
    this.isRetryable = this.isConnectionError || status === 429 || status >= 500;
    this.retryAfter = retryAfter;
  }
}

// Posts a file. While the service is busy, retries after the time it asks for; `onWait` is called before each wait.
// Resolves to the parsed JSON, or to a Blob if the response is an image; rejects with a message for the user.
export async function postWithRetry(route, file, fields, { signal, onProgress, onWait } = {}) {
  await checkReadable(file);
  let waited = 0;
  let connectionErrors = 0;
  for (;;) {
    try {
      return await post(route, file, fields, signal, onProgress);
    } catch (error) {
      const isTransient =
        error.isConnectionError && !signal?.aborted && ++connectionErrors <= MAX_CONNECTION_ERRORS && (await isAlive());
      const seconds = isTransient ? DEFAULT_DELAY : error.retryAfter;
      if (signal?.aborted || !seconds || waited + seconds > MAX_WAIT) throw error;
      waited += seconds;
      onWait?.();
      await delay(seconds, signal);
    }
  }
}

function post(route, file, fields, signal, onProgress) {
  const form = new FormData();
  form.append("image", file, file.name || "photo");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return void reject(new RequestError("Cancelled."));
    const request = new XMLHttpRequest(); // fetch() has no upload progress
    request.open("POST", route);
    request.responseType = "blob";
    request.upload.addEventListener("progress", (event) => onProgress?.(event.loaded / event.total));
    request.upload.addEventListener("load", () => onProgress?.(null));
    request.addEventListener("load", () => parse(request).then(resolve, reject));
    request.addEventListener("error", () =>
      reject(new RequestError("The server is not responding. Is it still running?")));
    request.addEventListener("abort", () => reject(new RequestError("Cancelled.")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

async function parse(request) {
  const type = request.getResponseHeader("Content-Type") ?? "";
  const body = type.includes("json") ? JSON.parse(await request.response.text()) : request.response;
  if (request.status === 200) return body;
  const { status } = request;
  const isBusy = status === 429 || status === 503;
  const retryAfter = Number(request.getResponseHeader("Retry-After")) || (isBusy ? DEFAULT_DELAY : null);
  throw new RequestError(body.detail ?? `The server returned status ${status}.`, { status, retryAfter });
}

// Folders and files that have been moved cannot be sent; the browser would report a connection error.
async function checkReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error("This file cannot be read. It may have been moved, or be a folder.");
  }
}

// Distinguishes a busy service, which may close a connection before reading the whole request, from a stopped one.
async function isAlive() {
  try {
    return (await fetch("/healthz")).ok;
  } catch {
    return false;
  }
}

function delay(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new RequestError("Cancelled."));
    });
  });
}
