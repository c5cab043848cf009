// Turns the films of a player to the frame that its slider is at.
function hdzooShow(slider) {
  const at = Number(slider.value);
  const player = slider.closest(".hz-player");
  player.querySelectorAll(".hz-film").forEach((film) => {
    film.querySelectorAll("img").forEach((image, i) => { image.hidden = i !== at; });
  });
  const bar = slider.closest(".hz-slider");
  bar.querySelector("output").textContent = JSON.parse(bar.dataset.captions)[at];
}

// On a small screen the pictures are above what begins them.
document.addEventListener("click", (event) => {
  const begins = event.target.closest && event.target.closest("button.primary");
  const panel = begins && begins.closest("[role=tabpanel]");
  const player = panel && panel.querySelector(".hz-player");
  if (player && window.innerWidth <= 700) {
    player.scrollIntoView({ block: "center", behavior: "smooth" });
  }
});

// Runs through all frames once, or stops.
function hdzooPlay(button) {
  const slider = button.parentElement.querySelector("input");
  if (button.dataset.timer) {
    clearInterval(Number(button.dataset.timer));
    delete button.dataset.timer;
    return;
  }
  if (Number(slider.value) === Number(slider.max)) slider.value = 0;
  hdzooShow(slider);
  button.dataset.timer = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    hdzooShow(slider);
    if (Number(slider.value) === Number(slider.max) || !button.isConnected) {
      clearInterval(Number(button.dataset.timer));
      delete button.dataset.timer;
    }
  }, 120);
}
