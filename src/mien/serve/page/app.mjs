// The page: what people choose, drop and paste goes to who reads; what is read becomes cards.

import { Camera } from "./camera.mjs";
import { Card } from "./card.mjs";
import { byId, element } from "./dom.mjs";
import { percent, summary } from "./emotions.mjs";
import { Browser, Server } from "./engine.mjs";
import { refusal } from "./frames.mjs";
import { download, readingsToCsv, readingsToJson } from "./save.mjs";

const settings = { threshold: 0, maps: false, smooth: 0.5 };
const readings = []; // { source, file, faces, error, card }
const engines = {}; // the ones that are there: browser, server
let started = null; // settled when it is known which are there
let emotions = []; // of the model that reads
let kind = null; // which of them reads
let queue = Promise.resolve();
let waiting = 0;
let isUpdating = false;
let wantsToken = false; // whether the server does

const WITHOUT_RUNTIME =
  "not yet: ONNX Runtime Web is not here. Run `make web` in a checkout, or `mien serve --runtime FOLDER` with the dist " +
  "folder of the npm package onnxruntime-web.";

const engine = () => engines[kind];
const say = (words) => byId("spoken").textContent !== words && (byId("spoken").textContent = words);
const camera = new Camera({ engine, settings, say, fail });

/** What site.json says of where the page lives: { server, runtime, token, abstain }. */
async function begin() {
  const site = await fetch("site.json").then((answer) => answer.json());
  if (site.runtime) engines.browser = new Browser();
  if (site.server) engines.server = new Server(new URL("./", location.href));
  byId("engines").hidden = !(site.server && site.runtime);
  wantsToken = site.token;
  byId("token-row").hidden = !wantsToken;
  settings.threshold = site.abstain;
  byId("threshold").value = site.abstain;
  update();
  use(site.runtime ? "browser" : "server");
}

/** Let the browser or the server read from now on. */
async function use(wanted) {
  if (camera.isRunning) camera.stop();
  kind = wanted;
  byId(`engine-${wanted}`).checked = true;
  const current = engine();
  byId("errors").replaceChildren();
  if (wanted === "server" && wantsToken && current.token === null) {
    byId("where").textContent = "This server wants its token before it reads.";
    byId("token").focus();
    return;
  }
  byId("where").textContent = "Loading the networks …";
  try {
    const model = await current.open();
    if (engine() !== current) return;
    byId("where").textContent =
      wanted === "browser"
        ? "The networks run in this browser. Pictures do not leave this device."
        : `Pictures are sent to ${location.host}, which reads them and keeps none.`;
    describe(model);
  } catch (error) {
    if (engine() !== current) return;
    byId("where").textContent = "Nothing can be read yet.";
    fail(wanted === "browser" ? "The networks did not load" : location.host, error.message);
  }
}

function describe({ name, precision, detector, ...model }) {
  emotions = model.emotions;
  const said = {
    classifier: `${name}, ${precision}`,
    detector,
    emotions: emotions.join(", "),
    runs: kind === "browser" ? "ONNX Runtime Web, WebAssembly, one thread" : `mien serve at ${location.host}`,
    ...(engines.browser ? {} : { "in the browser": WITHOUT_RUNTIME }),
  };
  byId("model").replaceChildren(...Object.entries(said).flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
}

/** Show an error, with what it is about. */
function fail(what, why) {
  const close = element("button", { type: "button", class: "quiet", "aria-label": `Dismiss: ${what}` }, "Dismiss");
  const item = element("p", {}, element("b", {}, element("bdi", {}, what)), element("span", {}, why), close);
  close.addEventListener("click", () => item.remove());
  byId("errors").append(item);
}

/** Read files one after another, each card as it comes. */
function take(files) {
  for (const file of files) {
    waiting += 1;
    queue = queue.then(() => readOne(file));
  }
  showBusy();
}

async function readOne(file) {
  byId("doing").textContent = `Reading ${file.name || "picture"}${waiting > 1 ? `, ${waiting - 1} more` : ""}`;
  const source = file.name || "pasted picture";
  try {
    await started;
    const current = engine(); // who reads may change meanwhile
    await current.open();
    const answer = await current.read(file);
    const reading = { source, file, error: null, ...answer };
    reading.card = new Card(reading, settings);
    readings.push(reading);
    byId("cards").prepend(reading.card.element);
    say(`${source}: ${summary(reading.faces, settings.threshold)}`);
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
  const words = [`${readings.length} ${readings.length === 1 ? "picture" : "pictures"}`, `${faces} ${faces === 1 ? "face" : "faces"}`];
  byId("total").textContent = words.join(", ");
  byId("all").hidden = readings.length === 0;
}

function update() {
  byId("threshold-text").textContent = settings.threshold === 0 ? "0 %" : percent(settings.threshold);
  byId("smooth-text").textContent = `${settings.smooth.toFixed(1)} s`;
  if (isUpdating) return; // a slider asks more often than cards can be drawn
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
  say("All readings are cleared.");
  byId("files").focus();
}

function listen() {
  byId("files").addEventListener("change", ({ target }) => {
    take([...target.files]);
    target.value = "";
  });
  byId("start").addEventListener("click", async () => {
    try {
      await started;
      await engine().open();
      await camera.start();
    } catch (error) {
      fail("Camera", error instanceof DOMException ? refusal(error) : error.message);
    }
  });
  byId("threshold").addEventListener("input", ({ target }) => {
    settings.threshold = Number(target.value);
    update();
  });
  byId("smooth").addEventListener("input", ({ target }) => {
    settings.smooth = Number(target.value);
    update();
  });
  byId("maps").addEventListener("change", ({ target }) => {
    settings.maps = target.checked;
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
    if (target instanceof HTMLInputElement) return; // the token
    const files = [...clipboardData.files];
    if (files.length > 0) take(files);
    else if (clipboardData.getData("text/plain")) fail("Clipboard", "there is no picture in it; copy a picture, not its address");
  });
  let depth = 0; // dragging over a child leaves its parent
  addEventListener("dragenter", () => byId("drop").classList.toggle("over", ++depth > 0));
  addEventListener("dragleave", () => byId("drop").classList.toggle("over", --depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    byId("drop").classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length > 0) take(files);
    else fail("Dropped", "there is no file in it; save the picture first, then drop the file");
  });
}

listen();
started = begin();
started.catch((error) => fail("The page could not start", error.message));
