"use strict";
const at = (id) => document.getElementById(id);
const photos = {};

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

async function ask(path, values) {
  const request = values && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values),
  };
  const reply = await fetch(path, request);
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

function show(text, crops, best) {
  at("answer").textContent = text;
  at("crops").replaceChildren(...crops.map((crop) => {
    const image = new Image();
    image.src = "data:image/png;base64," + crop;
    image.alt = "aligned face";
    return image;
  }));
  at("best").replaceChildren(...best.map((one) => {
    const row = document.createElement("tr");
    for (const text of [one.name, one.cosine.toFixed(3)]) row.insertCell().textContent = text;
    return row;
  }));
}

async function attempt(work) {
  show("Working.", [], []);
  try { await work(); } catch (error) { show(error.message, [], []); }
}

const far = () => Number(at("far").value);

const compare = () => attempt(async () => {
  const found = await ask("api/compare", { first: photos.first, second: photos.second, far: far() });
  const words = found.same ? "The same person" : "Different people";
  const notes = found.notes.filter(Boolean).map((note) => ` (${note})`).join("");
  show(`${words}: cosine ${found.cosine.toFixed(3)}, threshold ${found.threshold.toFixed(3)}${notes}`, found.crops, []);
});

const search = () => attempt(async () => {
  const found = await ask("api/search", { photo: photos.first, far: far() });
  const strangers = Number((100 * found.strangers_named).toPrecision(3));
  show(`${found.who ?? "Nobody in the gallery"} (up to ${strangers}% of strangers are taken for somebody)`, found.crops, found.best);
});

async function take(id, file) {
  if (!file) return;
  photos[id] = await base64(file);
  const image = new Image();
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  at(id).querySelector("span").replaceChildren(image);
  if (photos.first && photos.second) compare();
}

for (const id of ["first", "second"]) {
  at(id).addEventListener("dragover", (event) => event.preventDefault());
  at(id).addEventListener("drop", (event) => { event.preventDefault(); take(id, event.dataTransfer.files[0]); });
  at(id).querySelector("input").addEventListener("change", (event) => take(id, event.target.files[0]));
}
at("far").addEventListener("change", () => photos.first && photos.second && compare());
at("search").addEventListener("click", () => photos.first && search());

ask("api/model").then((model) => {
  at("far").replaceChildren(...model.fars.map((rate) => new Option(rate)));
  at("search").hidden = model.people === null;
  const people = model.people === null ? "no gallery" : `${model.people} people in the gallery`;
  at("model").textContent = `Model ${model.fingerprint.slice(0, 8)}, ${people}.`;
}).catch((error) => { at("model").textContent = error.message; });
