// One question to the service, with progress, and what to do with files that come back.

// The answer as data, or as a Blob when it is a picture. Rejects with a sentence for the reader.
export function ask(route, file, fields, signal, onProgress) {
  const form = new FormData();
  form.append("image", file, file.name || "photograph");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch() does not tell how much of an upload is sent
    request.open("POST", route);
    request.responseType = "blob";
    request.upload.addEventListener("progress", (event) => onProgress?.(event.loaded / event.total));
    request.upload.addEventListener("load", () => onProgress?.(null));
    request.addEventListener("load", () => read(request).then(resolve, reject));
    request.addEventListener("error", () =>
      reject(new Error("The captioning service does not answer. Is it still running?")));
    request.addEventListener("abort", () => reject(new Error("This was cancelled.")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

async function read(request) {
  const kind = request.getResponseHeader("Content-Type") ?? "";
  const answer = kind.includes("json") ? JSON.parse(await request.response.text()) : request.response;
  if (request.status === 200) return answer;
  throw new Error(answer.detail ?? `The captioning service answered with status ${request.status}.`);
}

// The name of a file made from the photograph, whose own name a pasted one may lack.
export function fileName(photograph, ending) {
  return `${(photograph.name || "photograph").replace(/\.[^.]*$/, "")}-${ending}`;
}

export function save(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
