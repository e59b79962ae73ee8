// The page: sends chosen, dropped and pasted files to the browser or the server, and shows each reading as a card.

import { Browser } from "./browser.mjs";
import { Camera, cameraErrorMessage } from "./camera.mjs";
import { Card } from "./card.mjs";
import { byId, element } from "./dom.mjs";
import { percent, summary } from "./emotions.mjs";
import { download, readingsToCsv, readingsToJson } from "./save.mjs";
import { Server } from "./server.mjs";

// `threshold` is a number, or the pairs [size of a face, threshold] of the model (`measured`).
const settings = { threshold: 0, maps: false, ownScale: false, smooth: 0.5 };
let measured = [];
const readings = []; // { source, file, faces, error, card }
const engines = {}; // those that are available: browser, server
let started = null; // resolves when the available engines are known
let emotions = []; // of the model in use
let kind = null; // the engine in use
let queue = Promise.resolve();
let waiting = 0;
let isUpdating = false;
let needsToken = false; // of the server

const WITHOUT_RUNTIME =
  "not available: this server was started without ONNX Runtime Web (mien serve --runtime FOLDER), so images are sent to it.";

const engine = () => engines[kind];
const announce = (words) => byId("announcement").textContent !== words && (byId("announcement").textContent = words);
const camera = new Camera({ engine, settings, announce, fail });

/** Read site.json { server, runtime, token, unsure_below, min_quality } and choose the engine. */
async function begin() {
  const response = await fetch("site.json").catch(() => null);
  const site = await response?.json().catch(() => null); // a proxy may respond with a page of its own
  if (!site) throw new Error("site.json could not be loaded; check the connection, log in again if this site asks for it, and load this page again");
  if (site.runtime) engines.browser = new Browser({ minQuality: site.min_quality });
  if (site.server) engines.server = new Server(new URL("./", location.href));
  byId("engines").hidden = !(site.server && site.runtime);
  needsToken = site.token;
  byId("token-row").hidden = !needsToken;
  measured = site.unsure_below;
  byId("measured-row").hidden = measured.length < 2; // one pair is a threshold for every size
  setThreshold(measured.length < 2 ? (measured[0]?.[1] ?? 0) : measured);
  use(site.runtime ? "browser" : "server");
}

/** Switch to the browser or the server. */
async function use(wanted) {
  if (camera.isRunning) camera.stop();
  kind = wanted;
  byId(`engine-${wanted}`).checked = true;
  const current = engine();
  byId("errors").replaceChildren();
  if (wanted === "server" && needsToken && current.token === null) {
    byId("where").textContent = "This server needs its token.";
    byId("token").focus();
    return;
  }
  byId("where").textContent = "Loading the networks …";
  try {
    const model = await current.open();
    if (engine() !== current) return;
    byId("where").textContent =
      wanted === "browser"
        ? "The networks run in this browser. Images stay on this device."
        : `Images are sent to ${location.host}, which does not store them.`;
    describe(model);
  } catch (error) {
    if (engine() !== current) return;
    byId("where").textContent = "No images can be read yet.";
    fail(wanted === "browser" ? "Loading the networks failed" : location.host, error.message);
  }
}

function describe({ name, precision, detector, ...model }) {
  emotions = model.emotions;
  const facts = {
    classifier: `${name}, ${precision}`,
    detector,
    emotions: emotions.join(", "),
    runs: kind === "browser" ? "ONNX Runtime Web, WebAssembly, one thread" : `mien serve at ${location.host}`,
    ...(engines.browser ? {} : { "in the browser": WITHOUT_RUNTIME }),
  };
  byId("model").replaceChildren(...Object.entries(facts).flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
}

/** Show an error and its subject. */
function fail(what, why) {
  const close = element("button", { type: "button", class: "quiet", "aria-label": `Dismiss: ${what}` }, "Dismiss");
  const item = element("p", {}, element("b", {}, element("bdi", {}, what)), element("span", {}, why), close);
  close.addEventListener("click", () => item.remove());
  byId("errors").append(item);
}

/** Read files one after another; each card appears when its file is read. */
function enqueue(files) {
  files.forEach((file, index) => {
    waiting += 1;
    queue = queue.then(() => readOne(file, index === 0));
  });
  showBusy();
}

async function readOne(file, isFirst) {
  const source = file.name || "pasted image";
  byId("doing").replaceChildren("Reading ", element("bdi", {}, source), waiting > 1 ? `, ${waiting - 1} more` : "");
  try {
    await started;
    const current = engine(); // the engine may change meanwhile
    await current.open();
    const reading = { source, file, error: null, ...(await current.read(file)) };
    reading.card = new Card(reading, settings, fail);
    readings.push(reading);
    byId("cards").append(reading.card.element);
    if (isFirst && readings.length > 1) reading.card.element.scrollIntoView({ block: "start" });
    announce(`${source}: ${summary(reading.faces, settings.threshold)}`);
  } catch (error) {
    readings.push({ source, faces: [], error: error.message });
    fail(source, error.message);
  }
  waiting -= 1;
  showBusy();
  showTotal();
}

function showBusy() {
  byId("busy").hidden = waiting === 0;
}

function showTotal() {
  const faces = readings.reduce((sum, reading) => sum + reading.faces.length, 0);
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  byId("total").textContent = `${count(readings.length, "image")}, ${count(faces, "face")}`;
  byId("all").hidden = readings.length === 0;
}

/** Call faces unsure below a number, or as measured for the model. */
function setThreshold(threshold) {
  settings.threshold = threshold;
  byId("measured").checked = Array.isArray(threshold);
  if (!Array.isArray(threshold)) byId("threshold").value = threshold;
  update();
}

function thresholdText() {
  if (!Array.isArray(settings.threshold)) return settings.threshold === 0 ? "0 %" : percent(settings.threshold);
  const values = settings.threshold.map(([, value]) => Math.round(100 * value));
  return `${Math.min(...values)} to ${Math.max(...values)} %`;
}

function update() {
  byId("threshold-text").textContent = thresholdText();
  byId("smooth-text").textContent = `${settings.smooth.toFixed(1)} s`;
  if (isUpdating) return; // a slider sends events faster than cards are drawn
  isUpdating = true;
  requestAnimationFrame(() => {
    isUpdating = false;
    for (const { card } of readings) card?.update();
  });
}

function clear() {
  readings.length = 0;
  byId("cards").replaceChildren();
  byId("errors").replaceChildren();
  showTotal();
  announce("All readings were removed.");
  byId("files").focus();
}

function listen() {
  byId("files").addEventListener("change", ({ target }) => {
    enqueue([...target.files]);
    target.value = "";
  });
  byId("start").addEventListener("click", async () => {
    try {
      await started;
      await engine().open();
      await camera.start();
    } catch (error) {
      fail("Camera", error instanceof DOMException ? cameraErrorMessage(error) : error.message);
    }
  });
  byId("threshold").addEventListener("input", ({ target }) => setThreshold(Number(target.value)));
  byId("measured").addEventListener("change", ({ target }) => {
    setThreshold(target.checked ? measured : Number(byId("threshold").value));
  });
  byId("smooth").addEventListener("input", ({ target }) => {
    settings.smooth = Number(target.value);
    update();
  });
  byId("maps").addEventListener("change", ({ target }) => {
    settings.maps = target.checked;
    update();
  });
  byId("own-scale").addEventListener("change", ({ target }) => {
    settings.ownScale = target.checked;
    update();
  });
  byId("engines").addEventListener("change", ({ target }) => use(target.value));
  byId("token").addEventListener("change", ({ target }) => {
    engines.server.token = target.value || null;
    if (kind === "server") use("server");
  });
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  byId("save-json").addEventListener("click", () => download("mien.json", readingsToJson(readings, settings.threshold), "application/json"));
  byId("save-csv").addEventListener("click", () => {
    const names = readings.flatMap(({ faces }) => faces.flatMap(({ probs }) => Object.keys(probs)));
    const columns = names.length > 0 ? [...new Set(names)] : emotions;
    download("mien.csv", readingsToCsv(readings, settings.threshold, columns), "text/csv");
  });
  byId("clear").addEventListener("click", clear);
  addEventListener("paste", ({ clipboardData, target }) => {
    if (target.id === "token") return;
    const files = [...clipboardData.files];
    if (files.length > 0) enqueue(files);
    else if (clipboardData.getData("text/plain")) fail("Clipboard", "contains no image; copy an image, not its address");
  });
  let depth = 0; // entering a child also fires dragleave on its parent
  addEventListener("dragenter", () => byId("drop").classList.toggle("over", ++depth > 0));
  addEventListener("dragleave", () => byId("drop").classList.toggle("over", --depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    byId("drop").classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length > 0) enqueue(files);
    else fail("Dropped", "contains no file; save the image first, then drop the file");
  });
}

listen();
started = begin();
started.catch((error) => {
  byId("where").textContent = "No images can be read yet.";
  fail("The page could not start", error.message);
});
