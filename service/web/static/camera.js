// The camera: that of a phone through its own application, any other in a window of the page.

const byId = (id) => document.getElementById(id);
const QUALITY = 0.92; // of the JPEG, 0 to 1

// Offers what this device has; `take` is called with an array of one file, `fail` with a sentence.
export function offerCamera(take, fail) {
  const isPhone = matchMedia("(pointer: coarse) and (hover: none)").matches;
  byId("snap").hidden = byId("snap-label").hidden = !isPhone;
  byId("film").hidden = isPhone || !navigator.mediaDevices?.getUserMedia; // there is none on plain HTTP
  byId("film").addEventListener("click", () => open(fail));
  byId("shoot").addEventListener("click", () => shoot(take));
  byId("leave").addEventListener("click", () => byId("camera").close());
  byId("camera").addEventListener("close", release); // Escape closes it too
}

async function open(fail) {
  try {
    const video = { facingMode: "environment", width: { ideal: 1920 } };
    byId("finder").srcObject = await navigator.mediaDevices.getUserMedia({ video });
    byId("camera").showModal();
  } catch {
    fail("The camera is not available. Allow access in the browser, or choose a file.");
  }
}

async function shoot(take) {
  const finder = byId("finder");
  if (!finder.videoWidth) return; // no picture yet
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: finder.videoWidth, height: finder.videoHeight });
  canvas.getContext("2d").drawImage(finder, 0, 0);
  byId("camera").close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
}

function release() {
  for (const track of byId("finder").srcObject?.getTracks() ?? []) track.stop();
  byId("finder").srcObject = null;
}
