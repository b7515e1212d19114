// The ways to add photos: file chooser, drag and drop, paste, camera app, examples.

const byId = (id) => document.getElementById(id);

// `onFiles` is called with an array of files, `onError` with a message.
export function listenForFiles(onFiles, onError) {
  for (const input of [byId("file"), byId("camera-input")]) {
    input.addEventListener("change", () => {
      onFiles([...input.files]);
      input.value = ""; // allows choosing the same file again
    });
  }
  byId("file").multiple = true; // without JavaScript the form accepts one file
  document.addEventListener("paste", (event) => onFiles([...event.clipboardData.files]));
  listenForDrops(onFiles);
  for (const button of document.querySelectorAll("#examples button")) {
    button.addEventListener("click", () => fetchExample(button, onFiles, onError));
  }
}

function listenForDrops(onFiles) {
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // e.g. text dragged into a caption
    event.preventDefault();
    document.body.dataset.dragging = "";
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete document.body.dataset.dragging;
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    delete document.body.dataset.dragging;
    onFiles([...event.dataTransfer.files]);
  });
}

async function fetchExample(button, onFiles, onError) {
  try {
    const response = await fetch(button.querySelector("img").src);
    if (!response.ok) throw new Error();
    onFiles([new File([await response.blob()], button.dataset.name)]);
  } catch {
    onError("The example could not be loaded. Is the server still running?");
  }
}
