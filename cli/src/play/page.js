"use strict";
const read = (id) => document.getElementById(id).textContent;
const options = JSON.parse(read("options"));
AsciinemaPlayer.create({ data: read("cast") }, document.getElementById("player"), {
  idleTimeLimit: options.idleTimeLimit ?? undefined,
  speed: options.speed,
  startAt: options.startAt,
  poster: "npt:" + options.startAt,
  preload: true,
  fit: "width",
  controls: true,
  theme: "asciinema",
});
