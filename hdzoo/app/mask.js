// A picture and a mask over it, cell by cell. Its value is {picture, width, height, mask}, the mask
// a string of rows from the top, "1" where is to be painted.
let cells = [];
let picture = null;
let drawing = null;

const canvas = () => element.querySelector("canvas");

function paint() {
  const value = props.value;
  const context = canvas().getContext("2d");
  if (!value || !picture) return;
  canvas().width = value.width;
  canvas().height = value.height;
  context.drawImage(picture, 0, 0);
  context.fillStyle = props.cover;
  context.globalAlpha = 0.75;
  cells.forEach((cell, i) => {
    if (cell) context.fillRect(i % value.width, Math.floor(i / value.width), 1, 1);
  });
}

function keep() {
  const mask = cells.map((cell) => (cell ? "1" : "0")).join("");
  if (props.value && props.value.mask !== mask) props.value = { ...props.value, mask };
}

function load() {
  const value = props.value;
  if (!value) return;
  cells = Array.from(value.mask, (cell) => cell === "1");
  if (picture && picture.src === value.picture) return paint();
  const image = new Image();
  image.onload = () => { picture = image; paint(); };
  image.src = value.picture;
}

function brush(event) {
  const value = props.value;
  const box = canvas().getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * value.width;
  const y = ((event.clientY - box.top) / box.height) * value.height;
  const size = Number(element.querySelector("input").value) * (value.width / 28) * 0.5;
  for (let row = 0; row < value.height; row += 1) {
    for (let column = 0; column < value.width; column += 1) {
      if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= size) {
        cells[row * value.width + column] = drawing === "add";
      }
    }
  }
  paint();
}

element.addEventListener("pointerdown", (event) => {
  if (event.target !== canvas() || !props.value) return;
  event.preventDefault();
  // The other button, or Shift, rubs out.
  drawing = event.button === 2 || event.shiftKey ? "rub" : "add";
  canvas().setPointerCapture(event.pointerId);
  brush(event);
});
element.addEventListener("pointermove", (event) => { if (drawing) brush(event); });
["pointerup", "pointercancel"].forEach((name) => element.addEventListener(name, () => {
  if (drawing) { drawing = null; keep(); }
}));
element.addEventListener("contextmenu", (event) => {
  if (event.target === canvas()) event.preventDefault();
});
element.addEventListener("click", (event) => {
  const what = event.target.dataset && event.target.dataset.do;
  if (!what || !props.value) return;
  const { width, height } = props.value;
  cells = cells.map((_, i) => what === "half" && Math.floor(i / width) >= Math.floor(height / 2));
  paint();
  keep();
});
watch("value", load);
load();
