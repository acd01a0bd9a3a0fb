import { resize } from "./resize.js";

const MAX_ROWS = 10; // labels that are not predicted are listed up to this number
const MAX_SIDE = 4096; // of an image in pixels; phones limit the size of a canvas

const element = (id) => document.getElementById(id);
const canvas = element("image");
const context = canvas.getContext("2d", { willReadFrequently: true });

const setup = await (await fetch("models.json")).json();
element("description").textContent = setup.description;
element("runtime").textContent = setup.runtime_note;

async function load() {
  const ort = await import(new URL("ort.wasm.min.mjs", new URL(setup.runtime, location.href)));
  ort.env.wasm.wasmPaths = new URL(setup.runtime, location.href).href;
  ort.env.wasm.numThreads = 1; // several need headers that a static host does not send
  const models = [];
  for (const model of setup.models) {
    const session = await ort.InferenceSession.create(model.file, { executionProviders: ["wasm"] });
    models.push({ ...model, session, panel: createPanel(model) });
  }
  return { ort, models };
}

function createPanel(model) {
  const panel = document.createElement("article");
  panel.append(create("h2", model.title), create("p", ""), document.createElement("table"));
  element("results").append(panel);
  return panel;
}

// Text is set as text, never as HTML: the names of labels are not trusted.
function create(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

async function classify({ ort, models }, width, height) {
  const pixels = context.getImageData(0, 0, width, height).data;
  for (const model of models) {
    const started = performance.now();
    const size = model.image_size;
    const rgb = resize(pixels, width, height, size);
    const planes = new Uint8Array(rgb.length); // (size, size, 3) to (3, size, size)
    for (let k = 0; k < rgb.length; k++) planes[(k % 3) * size * size + Math.trunc(k / 3)] = rgb[k];
    const images = new ort.Tensor("uint8", planes, [1, 3, size, size]);
    const { probabilities } = await model.session.run({ images }, ["probabilities"]);
    show(model, probabilities.data, performance.now() - started);
  }
}

function show(model, probabilities, milliseconds) {
  const [, summary, table] = model.panel.children;
  const rows = model.classes.map((name, k) => ({
    name, probability: probabilities[k], threshold: model.thresholds[k], predicted: probabilities[k] >= model.thresholds[k],
  }));
  rows.sort((a, b) => b.probability - a.probability);
  const predicted = rows.filter((row) => row.predicted).length;
  summary.textContent = `${predicted} of ${rows.length} labels in ${milliseconds.toFixed(0)} ms`;
  table.replaceChildren(...rows.filter((row, k) => row.predicted || k < MAX_ROWS).map(createRow));
}

function createRow({ name, probability, threshold, predicted }) {
  const row = create("tr", "", predicted ? "predicted" : "");
  row.dataset.label = name;
  row.dataset.probability = probability;
  const bar = create("div", "", "bar");
  const fill = document.createElement("span");
  fill.style.width = `${100 * probability}%`;
  const mark = document.createElement("i");
  mark.style.left = `${100 * threshold}%`;
  mark.title = `predicted from ${(100 * threshold).toFixed(1)} % on`;
  bar.append(fill, mark);
  const label = create("td", name);
  label.append(bar);
  row.append(label, create("td", `${(100 * probability).toFixed(1)} %`, "value"));
  return row;
}

// Draws an image or a frame, transparent pixels on white, and returns its size.
function draw(source, width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
  element("hint").hidden = true;
  return [canvas.width, canvas.height];
}

function setStatus(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

// One image after the other: a session runs once at a time, and all images share a canvas.
let pending = Promise.resolve();

function inTurn(work) {
  pending = pending.then(work).catch((error) => setStatus(`The image cannot be classified: ${error.message}`, true));
  return pending;
}

async function open(file, loaded) {
  stopCamera();
  setStatus("Classifying");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    setStatus(`${file.name} is not an image that this browser can read.`, true);
    return;
  }
  await inTurn(async () => {
    await classify(loaded, ...draw(bitmap, bitmap.width, bitmap.height));
    setStatus(file.name);
  });
}

let stream = null;

async function startCamera(loaded) {
  const video = element("video");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    setStatus(`The camera cannot be used: ${error.message}. Browsers allow it on https and on localhost.`, true);
    return;
  }
  video.srcObject = stream;
  await video.play();
  element("camera").textContent = "Stop the camera";
  setStatus("Camera");
  while (stream) {
    await inTurn(() => stream && classify(loaded, ...draw(video, video.videoWidth, video.videoHeight)));
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("camera").textContent = "Start the camera";
}

try {
  const loaded = await load();
  const drop = element("drop");
  if (!navigator.mediaDevices?.getUserMedia) element("camera").hidden = true; // without https
  element("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0], loaded));
  element("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera(loaded)));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0], loaded);
  });
  setStatus("Ready");
} catch (error) {
  setStatus(`The models cannot be loaded: ${error.message}`, true);
}
