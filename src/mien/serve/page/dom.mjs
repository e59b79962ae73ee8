// Helpers that create elements. Strings are set as text, never as markup: file names are untrusted.

/** An element: `properties` are attributes, except `style` (custom properties) and `on` (listeners). */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A canvas element with the content of an offscreen canvas. */
export function shown(offscreen, properties = {}) {
  const canvas = element("canvas", { width: offscreen.width, height: offscreen.height, ...properties });
  canvas.getContext("2d").drawImage(offscreen, 0, 0);
  return canvas;
}

export const byId = (id) => document.getElementById(id);
