"use strict";
const read = (id) => document.getElementById(id).textContent;
const options = JSON.parse(read("options"));
AsciinemaPlayer.create({ data: read("cast") }, document.getElementById("player"), {
  idleTimeLimit: options.idleTimeLimit ?? undefined,
  speed: options.speed,
  startAt: options.startAt,
  // At its very beginning a terminal is empty.
  poster: "npt:" + (options.startAt || 1),
  preload: true,
  fit: "width",
  controls: true,
  theme: "asciinema",
});
