// Returns a list of what a reader would see as broken on the page, in words. Everything that is folded is unfolded first.
() => {
  const SMALLEST = 9; // pixels: size of the letters of a plot
  const CONTRAST = 2; // of the letters of a plot against the page
  const LABELLED = ".axis, .scale, .marks, .boxes"; // elements whose texts are placed at a position, besides drawings
  // What a plot of matplotlib has without data: definitions, axes, legend, the grounds of figure and axes, spines.
  const FRAME = "defs, [id*='matplotlib.axis'], [id*='legend'], [id$='patch_1'], [id$='patch_2']";
  const SPINE = /patch_[3-6]$/;

  const problems = new Set();
  const all = (selector, within = document) => [...within.querySelectorAll(selector)].filter(isVisible);
  const isVisible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const words = (element) => element.textContent.trim().replaceAll(/\s+/g, " ").slice(0, 40);

  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const element of document.querySelectorAll("*")) element.style.contentVisibility = "visible"; // below the fold as well
  checkWidth(document.documentElement);
  const drawings = all("svg");
  for (const drawing of drawings) {
    checkLabels(all("text", drawing).filter((text) => words(text) !== ""));
    checkDrawing(drawing);
  }
  for (const group of all(LABELLED)) {
    checkLabels(all("*", group).filter((element) => element.childElementCount === 0 && words(element) !== ""));
  }
  for (const image of all("img")) {
    if (image.complete && image.naturalWidth === 0) problems.add(`an image that is not shown: ${image.alt}`);
  }
  all("canvas[role=img]").forEach(checkCanvas);
  return [...problems];

  /** The page never scrolls sideways; tables and plots scroll in their own frame. */
  function checkWidth(root) {
    const width = root.clientWidth;
    if (root.scrollWidth <= width + 1) return;
    const isInFrame = (element) =>
      element !== document.body && (getComputedStyle(element).overflowX !== "visible" || isInFrame(element.parentElement));
    const wide = all("body *").filter((e) => e.getBoundingClientRect().right > width + 1 && !isInFrame(e.parentElement));
    const names = wide.slice(0, 3).map((element) => `${element.tagName.toLowerCase()} (${words(element)})`);
    problems.add(`the page is ${root.scrollWidth} pixels wide, not ${width}: ${names}`);
  }

  function checkLabels(texts) {
    for (const text of texts) {
      const { b, d } = text.getScreenCTM?.() ?? { b: 0, d: 1 };
      const size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(b, d);
      if (size < SMALLEST - 0.05) problems.add(`letters of ${size.toFixed(1)} pixels: ${words(text)}`);
      const { fill } = getComputedStyle(text);
      const isHardlySeen = text.getBBox && fill.startsWith("rgb") && contrast(fill) < CONTRAST;
      if (isHardlySeen) problems.add(`letters that are hardly seen: ${words(text)}`);
      if (text.getBBox && isCutOff(text)) problems.add(`a label is cut off: ${words(text)}`);
    }
    const shapes = texts.map(corners);
    shapes.forEach((one, i) => {
      shapes.slice(i + 1).forEach((other, k) => {
        if (!isApart(one, other)) problems.add(`one label is over another: ${words(texts[i])} / ${words(texts[i + 1 + k])}`);
      });
    });
  }

  /** Whether a text of a drawing is beyond its edge, where nothing is shown. */
  function isCutOff(text) {
    const [inside, edge] = [text, text.ownerSVGElement].map((element) => element.getBoundingClientRect());
    return inside.left < edge.left - 1 || inside.right > edge.right + 1 || inside.top < edge.top - 3 || inside.bottom > edge.bottom + 3;
  }

  /** The contrast of a colour "rgb(...)" against the page, as WCAG defines it. */
  function contrast(color) {
    const [dim, bright] = [color, getComputedStyle(document.body).backgroundColor].map(luminance).sort((a, b) => a - b);
    return (bright + 0.05) / (dim + 0.05);
  }

  function luminance(color) {
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = color.match(/[\d.]+/g).map((value) => linear(Number(value) / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }

  /** The corners of the letters of a label, on the screen; those of a drawing may be turned. */
  function corners(text) {
    if (!text.getBBox) {
      const { left, top, right, bottom } = text.getBoundingClientRect();
      return [[left, top], [right, top], [right, bottom], [left, bottom]];
    }
    const { x, y, width, height } = text.getBBox();
    const [top, bottom] = [y + 0.2 * height, y + 0.8 * height]; // without the room above and below the letters
    const points = [[x, top], [x + width, top], [x + width, bottom], [x, bottom]];
    return points.map(([across, down]) => {
      const place = new DOMPoint(across, down).matrixTransform(text.getScreenCTM());
      return [place.x, place.y];
    });
  }

  /** Whether two rectangles are apart along an edge of one of them: the separating axis theorem. */
  function isApart(one, other) {
    return [one, other].some((shape) =>
      shape.slice(0, 2).some(([x, y], index) => {
        const [dx, dy] = [shape[index + 1][0] - x, shape[index + 1][1] - y];
        const length = Math.hypot(dx, dy) || 1;
        const along = (points) => points.map((point) => (point[0] * dx + point[1] * dy) / length);
        const [a, b] = [along(one), along(other)];
        return Math.max(...a) <= Math.min(...b) + 1 || Math.max(...b) <= Math.min(...a) + 1;
      }),
    );
  }

  function checkDrawing(drawing) {
    const { width, height } = drawing.getBoundingClientRect();
    if (width <= 1 || height <= 1) return; // it only defines patterns
    const isPlot = drawing.querySelector("[id*='axes_']") !== null;
    const marks = all("path, rect, circle, line, polyline, polygon, image, use", drawing).filter((mark) => {
      const size = mark.getBoundingClientRect();
      return size.width + size.height > 0.5 && !mark.closest(FRAME) && !(isPlot && SPINE.test(mark.parentElement.id));
    });
    if (marks.length === 0) problems.add(`an empty plot: ${drawing.getAttribute("aria-label")}`);
  }

  function checkCanvas(canvas) {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const isEmpty = !copy.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    if (isEmpty) problems.add(`an empty plot: ${canvas.getAttribute("aria-label")}`);
  }
}
