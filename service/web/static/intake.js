// How photographs come in: chosen, dropped, pasted, taken with a camera, or one of the examples.

const byId = (id) => document.getElementById(id);

// `take` is called with an array of files, `fail` with a sentence.
export function watchForPhotographs(take, fail) {
  for (const input of [byId("file"), byId("snap")]) {
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  byId("file").multiple = true; // without JavaScript the form sends one
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  watchDrops(take);
  for (const button of document.querySelectorAll("#examples button")) {
    button.addEventListener("click", () => fetchExample(button, take, fail));
  }
}

function watchDrops(take) {
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // text may be dragged into a caption
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
    take([...event.dataTransfer.files]);
  });
}

async function fetchExample(button, take, fail) {
  try {
    const answer = await fetch(button.querySelector("img").src);
    if (!answer.ok) throw new Error();
    take([new File([await answer.blob()], button.dataset.name)]);
  } catch {
    fail("The example could not be loaded. Is the server still running?");
  }
}
