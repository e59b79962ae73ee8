// Written by tools/docs_pages.py from mien/_emotions.py; do not edit.

export const COLORS = {
  angry: "#e5484d",
  disgust: "#5b9a3c",
  fear: "#8e6bd8",
  happy: "#f2b01e",
  sad: "#3f7fd0",
  surprise: "#f0803c",
  neutral: "#8b949e",
  contempt: "#c2599a",
};
export const UNSURE_COLOR = "#f4f4f2";
