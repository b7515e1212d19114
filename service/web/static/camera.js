// The camera: on phones the system's camera app, elsewhere a dialog of the page.

const byId = (id) => document.getElementById(id);
const JPEG_QUALITY = 0.92; // 0 to 1

// Shows the button that suits the device. `onFiles` is called with an array of one file, `onError` with a message.
export function setUpCamera(onFiles, onError) {
  const isPhone = matchMedia("(pointer: coarse) and (hover: none)").matches;
  byId("camera-input").hidden = byId("camera-label").hidden = !isPhone;
  byId("open-camera").hidden = isPhone || !navigator.mediaDevices?.getUserMedia; // undefined on plain HTTP
  byId("open-camera").addEventListener("click", () => open(onError));
  byId("take-photo").addEventListener("click", () => takePhoto(onFiles));
  byId("close-camera").addEventListener("click", () => byId("camera").close());
  byId("camera").addEventListener("close", stopStream); // also closed by Escape
}

async function open(onError) {
  try {
    const video = { facingMode: "environment", width: { ideal: 1920 } };
    byId("viewfinder").srcObject = await navigator.mediaDevices.getUserMedia({ video });
    byId("camera").showModal();
  } catch {
    onError("The camera is not available. Allow access in the browser, or choose a file.");
  }
}

async function takePhoto(onFiles) {
  const viewfinder = byId("viewfinder");
  if (!viewfinder.videoWidth) return; // no frame yet
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: viewfinder.videoWidth, height: viewfinder.videoHeight });
  canvas.getContext("2d").drawImage(viewfinder, 0, 0);
  byId("camera").close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  onFiles([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
}

function stopStream() {
  for (const track of byId("viewfinder").srcObject?.getTracks() ?? []) track.stop();
  byId("viewfinder").srcObject = null;
}
