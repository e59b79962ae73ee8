// Returns a list of what a reader would see as broken, in words. Everything that is folded is unfolded first.
() => {
  const SMALLEST = 9; // pixels: height of the letters of a plot
  const CONTRAST = 2; // of the letters of a plot against the page
  const problems = new Set();
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const element of document.querySelectorAll("*")) element.style.contentVisibility = "visible"; // below the fold as well
  const root = document.documentElement;
  const visible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const name = (element) => `${element.tagName.toLowerCase()}${element.className && element.className.baseVal === undefined ? "." + element.className.trim().replaceAll(/\s+/g, ".") : ""}`;
  const words = (element) => element.textContent.trim().replaceAll(/\s+/g, " ").slice(0, 40);

  // The page itself never scrolls sideways; tables and plots scroll in their own frame.
  if (root.scrollWidth > root.clientWidth + 1) {
    const scrolls = (element) => element && element !== document.body && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
    const wide = [...document.body.querySelectorAll("*")].filter((e) => visible(e) && !scrolls(e.parentElement) && e.getBoundingClientRect().right > root.clientWidth + 1);
    problems.add(`the page is ${root.scrollWidth} pixels wide, not ${root.clientWidth}: ${wide.slice(0, 3).map(name)}`);
  }

  // Labels: the texts of a drawing, and those that are placed at a position.
  const drawings = [...document.querySelectorAll("svg")].filter(visible);
  const placed = [".axis", ".scale", ".marks", ".boxes"].flatMap((kind) => [...document.querySelectorAll(kind)]).filter(visible);
  const leaves = (element) => [...element.querySelectorAll("*")].filter((e) => e.childElementCount === 0 && words(e) !== "" && visible(e));
  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map((value) => channel(Number(value) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const corners = (text) => {
    if (!text.getBBox) {
      const { left, top, right, bottom } = text.getBoundingClientRect();
      return [[left, top], [right, top], [right, bottom], [left, bottom]];
    }
    const { x, y, width, height } = text.getBBox();
    const matrix = text.getScreenCTM();
    const pad = 0.2 * height; // the room above and below the letters
    return [[x, y + pad], [x + width, y + pad], [x + width, y + height - pad], [x, y + height - pad]]
      .map(([across, down]) => new DOMPoint(across, down).matrixTransform(matrix)).map(({ x, y }) => [x, y]);
  };
  const isApart = (one, other) => [one, other].some((shape) => shape.slice(0, 2).some((_, k) => {
    const [dx, dy] = [shape[k + 1][0] - shape[k][0], shape[k + 1][1] - shape[k][1]]; // an edge and its direction
    const length = Math.hypot(dx, dy) || 1;
    const along = (points) => points.map(([x, y]) => (x * dx + y * dy) / length);
    const [a, b] = [along(one), along(other)];
    return Math.max(...a) <= Math.min(...b) + 1 || Math.max(...b) <= Math.min(...a) + 1;
  }));
  for (const group of [...drawings, ...placed]) {
    const texts = group.tagName === "svg" ? [...group.querySelectorAll("text")].filter((t) => words(t) !== "" && visible(t)) : leaves(group);
    for (const text of texts) {
      const matrix = text.getScreenCTM ? text.getScreenCTM() : { b: 0, d: 1 };
      const size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.b, matrix.d);
      if (size < SMALLEST - 0.05) problems.add(`letters of ${size.toFixed(1)} pixels: ${words(text)}`);
      const ink = getComputedStyle(text).fill;
      if (!text.getBBox || !ink.startsWith("rgb")) continue;
      const [dim, bright] = [luminance(ink), paper].sort((a, b) => a - b);
      if ((bright + 0.05) / (dim + 0.05) < CONTRAST) problems.add(`letters that are hardly seen: ${words(text)}`);
    }
    const shapes = texts.map(corners);
    for (let i = 0; i < shapes.length; i++) {
      for (let k = i + 1; k < shapes.length; k++) {
        if (!isApart(shapes[i], shapes[k])) problems.add(`one label is over another: ${words(texts[i])} / ${words(texts[k])}`);
      }
    }
  }

  // Plots and images that show nothing.
  const FRAME = "defs, [id*='matplotlib.axis'], [id*='legend'], [id$='patch_1'], [id$='patch_2']";
  for (const drawing of drawings) {
    const marks = [...drawing.querySelectorAll("path, rect, circle, line, polyline, polygon, image, use")].filter((mark) => {
      const { width, height } = mark.getBoundingClientRect();
      return width + height > 0.5 && !mark.closest(FRAME);
    });
    const spines = drawing.querySelectorAll("[id*='patch_']:not([id$='patch_1']):not([id$='patch_2'])").length;
    const isMatplotlib = drawing.querySelector("[id*='axes_']") !== null;
    const data = isMatplotlib ? marks.filter((mark) => !/patch_[3-6]$/.test(mark.parentElement.id)) : marks;
    const { width, height } = drawing.getBoundingClientRect();
    if (width > 1 && height > 1 && data.length === 0) problems.add(`an empty plot: ${drawing.getAttribute("aria-label") ?? drawing.closest("figure")?.textContent.trim().slice(0, 40)}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (visible(image) && image.complete && image.naturalWidth === 0) problems.add(`an image that is not shown: ${image.alt}`);
  }
  for (const canvas of [...document.querySelectorAll("canvas[role=img]")].filter(visible)) {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const isEmpty = !copy.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    if (isEmpty) problems.add(`an empty plot: ${canvas.getAttribute("aria-label")}`);
  }
  return [...problems];
}
