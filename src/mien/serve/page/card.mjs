// The card of one image: the image with a button on every face, and a panel for each with bars and maps.

import { element, shown } from "./dom.mjs";
import { cropCanvas, drawMap, mapCanvas } from "./draw.mjs";
import { COLORS, headline, labelOf, percent, qualityText, UNSURE_COLOR } from "./emotions.mjs";
import { decode } from "./decode.mjs";
import { annotatedPng, download } from "./save.mjs";

const OPEN_FACES = 8; // panels shown at once; those of smaller faces are collapsed
const NAMED_FACES = 4; // up to this many faces, boxes carry a name; with more, a number
const NAMED_SHARE = 0.08; // of the image's width: narrower boxes carry a number
const SMALL_SHARE = 0.03; // of the image's width: narrower boxes show their label only when pointed at
const LONGEST = 1600; // pixels of the shown image's longer side

let lastNumber = 0;

/** A card for a reading { source, faces, width, height, bitmap, file, note }; `settings` has threshold and maps; `fail` shows
 * an error.
 *
 * The bitmap is closed after drawing: fifty photographs would fill the memory. The card shows a smaller copy; saving the
 * annotated image decodes the file again. */
export class Card {
  constructor(reading, settings, fail) {
    Object.assign(this, { reading, settings, fail });
    this.crops = reading.faces.map((face) => cropCanvas(face, reading.bitmap));
    this.number = ++lastNumber;
    this.pointed = null;
    this.chosen = reading.faces.map(() => null);
    this.overlay = element("canvas", { class: "over", "aria-hidden": "true" });
    this.boxes = element("div", { class: "boxes" });
    this.faces = element("div", { class: "panels" });
    this.element = this.build();
    this.update();
    reading.bitmap.close();
    reading.bitmap = null;
  }

  build() {
    const { source, faces, width, height, note } = this.reading;
    const layout = faces.length < 2 ? "one" : "many";
    const count = faces.length === 1 ? "1 face" : faces.length === 0 ? "no face" : `${faces.length} faces`;
    const title = element("h2", { id: `p${this.number}` }, element("bdi", {}, source));
    const facts = [count, `${width} × ${height} pixels`, this.time(), note].filter(Boolean);
    return element(
      "article",
      { class: `card ${layout}`, "aria-labelledby": `p${this.number}` },
      title,
      element("p", { class: "about" }, ...facts.map((fact) => element("span", {}, fact))),
      element("div", { class: "shot" }, this.image(), this.actions()),
      faces.length > 0 ? this.faces : element("p", { class: "none" }, "No face was found in this image."),
    );
  }

  time() {
    const total = Object.values(this.reading.milliseconds).reduce((sum, value) => sum + value, 0);
    return total < 950 ? `${Math.round(total)} ms` : `${(total / 1000).toFixed(1)} s`;
  }

  image() {
    const { bitmap, source } = this.reading;
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
    const canvas = element("canvas", { width, height, role: "img", "aria-label": `Image ${source}` });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    Object.assign(this, { scale, shownSize: { width, height } });
    return element("div", { class: "image" }, canvas, this.overlay, this.boxes);
  }

  actions() {
    const save = element("button", { type: "button", class: "quiet", on: { click: () => this.save() } }, "Annotated image (PNG)");
    return element("p", { class: "actions" }, save);
  }

  async save() {
    const { file, faces, source } = this.reading;
    try {
      const { bitmap } = await decode(file);
      download(`${source.replace(/\.[^.]*$/, "")}.mien.png`, await annotatedPng(bitmap, faces, this.settings));
    } catch (error) {
      this.fail(source, error.message);
    }
  }

  /** Draw again after threshold or maps have changed. */
  update() {
    const { faces } = this.reading;
    this.boxes.replaceChildren(...faces.map((face, index) => this.box(face, index)));
    const panels = (from, to) => faces.slice(from, to).map((face, index) => this.panel(face, from + index));
    const isOpen = this.faces.querySelector("details")?.open ?? false;
    this.faces.replaceChildren(element("div", { class: "faces" }, ...panels(0, OPEN_FACES)));
    if (faces.length > OPEN_FACES) this.faces.append(this.folded(() => panels(OPEN_FACES, faces.length), isOpen));
    this.draw();
  }

  /** The collapsed panels of smaller faces; they are built when first opened. */
  folded(panels, isOpen) {
    const count = this.reading.faces.length - OPEN_FACES;
    const inside = element("div", { class: "faces" });
    const word = `${count} smaller ${count === 1 ? "face" : "faces"}`;
    const details = element("details", {}, element("summary", {}, word), inside);
    const fill = () => inside.childElementCount === 0 && inside.append(...panels());
    details.fill = fill;
    details.addEventListener("toggle", fill);
    if (isOpen) {
      fill();
      details.open = true;
    }
    return details;
  }

  box(face, index) {
    const { width, height, faces } = this.reading;
    const share = (value, side) => Math.min(Math.max(value / side, 0), 1);
    const [x1, x2] = [share(face.box[0], width), share(face.box[2], width)];
    const [y1, y2] = [share(face.box[1], height), share(face.box[3], height)];
    const isCrowd = faces.length > NAMED_FACES;
    const isNarrow = x2 - x1 < NAMED_SHARE;
    const { emotion } = labelOf(face, this.settings.threshold);
    const name = emotion === null ? "unsure" : headline(face, this.settings.threshold);
    const label = faces.length === 1 ? name : isCrowd || isNarrow ? `${index + 1}` : `${index + 1} ${name}`;
    const flags = ["box"];
    if (emotion === null) flags.push("e-unsure");
    if (y1 < 0.08) flags.push("under");
    if (x1 > 0.7) flags.push("right");
    if (isCrowd && x2 - x1 < SMALL_SHARE) flags.push("small");
    const point = (pointed) => () => {
      this.pointed = pointed;
      this.draw();
    };
    return element(
      "button",
      {
        type: "button",
        class: flags.join(" "),
        "aria-label": `Face ${index + 1}: ${headline(face, this.settings.threshold)}. Show its map`,
        style: {
          left: `${100 * x1}%`, top: `${100 * y1}%`, width: `${100 * (x2 - x1)}%`, height: `${100 * (y2 - y1)}%`,
          "--c": emotion === null ? UNSURE_COLOR : COLORS[emotion], "--z": faces.length - index,
        },
        on: {
          pointerenter: point(index), pointerleave: point(null), focus: point(index), blur: point(null),
          click: () => this.show(index),
        },
      },
      element("span", {}, label),
    );
  }

  /** Scroll to the panel of a face. */
  show(index) {
    this.pointed = index;
    this.draw();
    const details = this.faces.querySelector("details");
    if (index >= OPEN_FACES) {
      details.fill();
      details.open = true;
    }
    const panel = this.faces.querySelector(`#p${this.number}f${index + 1}`);
    for (const other of this.faces.querySelectorAll(".face")) other.classList.toggle("marked", other === panel);
    panel.scrollIntoView({ block: "nearest" });
  }

  /** Draw the map of the pointed face, or of all faces if maps are on. */
  draw() {
    const isUsed = this.settings.maps || this.pointed !== null; // empty overlays would take as much memory as the images
    Object.assign(this.overlay, isUsed ? this.shownSize : { width: 1, height: 1 });
    const context = this.overlay.getContext("2d");
    context.scale(this.scale, this.scale);
    this.reading.faces.forEach((face, index) => {
      if (this.settings.maps || this.pointed === index) drawMap(context, face, this.emotionOf(index), this.settings);
    });
  }

  emotionOf(index) {
    return this.chosen[index] ?? labelOf(this.reading.faces[index], 0).top;
  }

  panel(face, index) {
    const { threshold } = this.settings;
    const { emotion, top, confidence } = labelOf(face, threshold);
    const id = `p${this.number}f${index + 1}`;
    const isAlone = this.reading.faces.length === 1;
    const name = element("span", { class: "name" }, emotion ?? "unsure");
    const sure = emotion === null ? `most likely ${top}, ${percent(confidence)}` : percent(confidence);
    const badge = isAlone ? null : element("span", { class: "number" }, `${index + 1}`);
    const seen = element("div", { class: "seen", role: "img", "aria-label": `Face ${index + 1} with the map of the selected emotion` });
    const show = (chosen) => {
      seen.replaceChildren(shown(this.crops[index]), shown(mapCanvas(face, chosen, this.settings), { class: "map" }));
    };
    show(this.emotionOf(index));
    return element(
      "section",
      {
        class: `face${emotion === null ? " e-unsure" : ""}`, id, role: "group",
        "aria-label": `Face ${index + 1}: ${headline(face, threshold)}`,
        style: { "--c": emotion === null ? UNSURE_COLOR : COLORS[emotion] },
      },
      element("h3", {}, badge, name, element("small", {}, sure)),
      element(
        "div",
        { class: "views" },
        view(shown(this.crops[index]), face.crop ? "the network's input" : "the face, turned upright"),
        view(seen, "evidence for the selected emotion"),
      ),
      this.bars(face, index, show),
      element("p", { class: "quality" }, qualityText(face.quality)),
    );
  }

  bars(face, index, show) {
    const group = `p${this.number}f${index + 1}`;
    const current = this.emotionOf(index);
    const rows = Object.entries(face.probs).map(([emotion, probability]) => {
      const input = element("input", { type: "radio", name: group, value: emotion, checked: emotion === current });
      const row = element(
        "label",
        { style: { "--c": COLORS[emotion], "--p": `${100 * probability}%` } },
        input,
        element("span", {}, emotion),
        element("span", { class: "bar" }, element("i", {})),
        element("span", { class: "value" }, percent(probability)),
      );
      input.addEventListener("change", () => {
        this.chosen[index] = emotion;
        show(emotion);
        this.draw();
      });
      row.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && show(emotion));
      row.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && show(this.emotionOf(index)));
      return row;
    });
    const legend = element("legend", { class: "hidden" }, `Probabilities of face ${index + 1}; choose an emotion to see its map`);
    return element("fieldset", { class: "pick" }, legend, ...rows);
  }
}

function view(image, caption) {
  return element("figure", {}, image, element("figcaption", {}, caption));
}
