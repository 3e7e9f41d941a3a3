"use strict";
// A drop opens a WebSocket. The service asks for byte ranges, which are sliced here, and sends the report as it grows.
const $ = (id) => document.getElementById(id);
const MOST_FILES = 20000;
let number = 0;

const say = (text) => { $("status").textContent = text; };
const size = (n) => n < 1e3 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
const element = (tag, attributes = {}, ...children) => {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
};

// One model on the page: an article that is replaced as it grows, and a line in the list of models.
class Model {
  constructor(name) {
    this.name = name;
    this.id = `model-${number++}`;
    this.sent = 0;
    this.article = element("article", { id: this.id, "aria-busy": "true" }, element("h2", {}, name));
    this.progress = element("p", { class: "progress" }, "Reading the header …");
    this.article.append(this.progress);
    $("main").append(this.article);
    this.link = element("a", { href: `#${this.id}` }, name);
    this.label = element("span", {}, " …");
    this.item = element("li", {}, this.link, this.label);
    $("models").hidden = false;
    $("models").querySelector("ul").append(this.item);
  }
  count(bytes) {
    this.sent += bytes;
    if (this.article.ariaBusy !== "false") this.progress.textContent = `${size(this.sent)} read so far …`;
  }
  show(html, busy) {
    const title = (summary) => summary.textContent.replace(/\d/g, "");  // "61 norms": counts change as it grows
    const open = new Set([...this.article.querySelectorAll("details[open] > summary")].map(title));
    // The service escapes every name; nothing else makes HTML here, and the policy of the page allows no script in it.
    const fresh = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    fresh.id = this.id;
    fresh.setAttribute("aria-busy", String(busy));
    for (const picture of fresh.querySelectorAll("svg[data-style]")) picture.style.cssText = picture.dataset.style;
    for (const one of fresh.querySelectorAll("details > summary")) one.parentElement.open = open.has(title(one));
    if (busy) fresh.querySelector("h2").after(this.progress);
    const focused = this.article.contains(document.activeElement);
    this.article.replaceWith(fresh);
    this.article = fresh;
    const heading = fresh.querySelector("h2");
    heading.tabIndex = -1;
    if (focused) heading.focus();
  }
  finish(label, sure, saved) {
    this.label.textContent = ` ${label}${sure ? `, ${sure}` : ""}`;
    const close = element("button", { type: "button", "aria-label": `Remove ${this.name}` }, "Remove");
    close.addEventListener("click", () => this.remove());
    const links = Object.entries(saved).map(([text, { data, type, ending }]) => {
      const url = URL.createObjectURL(new Blob([data], { type }));
      return element("a", { href: url, download: `${this.name.split("/").pop()}.${ending}`, "aria-label": `${text} of ${this.name}` }, text);
    });
    this.article.append(element("p", { class: "tools" }, ...links, close));
  }
  remove() {
    for (const link of this.article.querySelectorAll(".tools a")) URL.revokeObjectURL(link.href);
    this.article.remove();
    this.item.remove();
    $("models").hidden = !$("models").querySelector("li");
    say(`${this.name} removed`);
    $("files").focus();
  }
}

// Answer a question: the ranges one after the other, behind the number of the question.
const answer = async (socket, files, { ask, ranges }) => {
  try {
    const total = ranges.reduce((sum, [, start, stop]) => sum + stop - start, 0);
    const message = new Uint8Array(4 + total);
    new DataView(message.buffer).setUint32(0, ask);
    const parts = await Promise.all(ranges.map(([file, start, stop]) => files[file].slice(start, stop).arrayBuffer()));
    let at = 4;
    for (const part of parts) { message.set(new Uint8Array(part), at); at += part.byteLength; }
    if (at !== message.length) throw new Error("the file is shorter than it was");
    socket.send(message);
    return total;
  } catch (error) {
    socket.send(JSON.stringify({ ask, reason: `the page cannot read the file: ${error.message}` }));
    return 0;
  }
};

// Open a session and follow it to its end.
const follow = (opening, files, what) => {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/session`);
  socket.binaryType = "arraybuffer";
  let models = [];
  let ended = false;
  say(`Looking at ${what} …`);
  socket.addEventListener("open", () => socket.send(JSON.stringify(opening)));
  const hear = {
    models: (said) => { models = said.models.map((name) => new Model(name)); },
    skipped: (said) => {
      const names = said.files.map(([name, reason]) => `${name}: ${reason}`);
      const list = element("ul", {}, ...names.map((text) => element("li", {}, text)), ...(said.more ? [element("li", {}, `and ${said.more} more`)] : []));
      $("main").append(element("article", {}, element("h2", {}, "Passed over"), list));
    },
    read: async (said) => models[said.model]?.count(await answer(socket, files, said)),
    grown: (said) => { models[said.model].show(said.html, true); },
    done: (said) => {
      const model = models[said.model];
      model.show(said.html, false);
      const [, ...sure] = said.words.slice(model.name.length).split(", ");
      model.finish(said.label, sure.join(", "), {
        "Save report": { data: said.page, type: "text/html", ending: "html" },
        "Save JSON": { data: said.record, type: "application/json", ending: "json" },
      });
      say(said.words);
    },
    failed: (said) => { models[said.model].show(said.html, false); models[said.model].finish("not read", "", {}); say(said.words); },
    problem: (said) => { ended = true; failed(what, said.detail); },
    waiting: () => say(`${what}: waiting for its turn …`),
    end: () => { ended = true; },
  };
  socket.addEventListener("message", (event) => {
    const said = JSON.parse(event.data);
    hear[said.type]?.(said);
  });
  socket.addEventListener("close", (event) => {
    if (ended) return;
    const reason = event.code === 1013 ? "too many pages are open; try again in a while" : "the service is gone, or took no more";
    const left = models.filter((one) => one.article.getAttribute("aria-busy") === "true");
    for (const one of left) {
      one.progress.textContent = `Not finished: ${reason}.`;
      one.article.setAttribute("aria-busy", "false");
      one.finish("not finished", "", {});
    }
    if (!left.length) failed(what, reason);
    else say(`${what}: ${reason}`);
  });
};

const failed = (what, detail) => {
  const text = element("p", { class: "failure", role: "alert" }, detail);
  const close = element("button", { type: "button", "aria-label": `Remove the message on ${what}` }, "Remove");
  const article = element("article", {}, element("h2", {}, what), text, element("p", { class: "tools" }, close));
  close.addEventListener("click", () => { article.remove(); $("files").focus(); });
  $("main").append(article);
  say(`${what}: not read`);
};

// Take files with their paths in the drop.
const take = (found) => {
  if (!found.length) return;
  const what = found.length === 1 ? found[0].path : `${found.length} files`;
  if (found.length > MOST_FILES) { failed(what, `at most ${MOST_FILES} files at a time`); return; }
  follow({ files: found.map(({ path, file }) => [path, file.size]) }, found.map(({ file }) => file), what);
};
const chosen = (list) => [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

// Walk the folders of a drop; entries must be taken before the event is over.
const walk = async (entry, path, found) => {
  if (entry.isFile) {
    found.push({ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length || found.length > MOST_FILES) return;
    for (const one of some) await walk(one, `${path}/${one.name}`, found);
  }
};
const transferred = async (data) => {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(data.files);
  const found = [];
  for (const entry of entries) await walk(entry, entry.name, found);
  return found;
};

const look = (name) => {
  if (name) follow(name.includes("://") ? { url: name } : { path: name }, [], name);
};

$("files").addEventListener("click", () => $("pick-files").click());
$("folder").addEventListener("click", () => $("pick-folder").click());
for (const id of ["pick-files", "pick-folder"]) {
  $(id).addEventListener("change", (event) => {
    take(chosen(event.target.files));
    event.target.value = "";
  });
}
$("named").addEventListener("submit", (event) => {
  event.preventDefault();
  look($("name").value.trim());
});
let over = 0;
const hovering = (change) => { over = Math.max(0, over + change); document.body.classList.toggle("over", over > 0); };
addEventListener("dragenter", (event) => { event.preventDefault(); hovering(1); });
addEventListener("dragleave", () => hovering(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  over = 0;
  hovering(0);
  const text = event.dataTransfer.getData("text/uri-list") || event.dataTransfer.getData("text/plain");
  try {
    const found = await transferred(event.dataTransfer);
    if (found.length) take(found);
    else look(text.split("\n")[0].trim());
  } catch (error) {
    failed("The drop", `it cannot be read: ${error.message}`);
  }
});
addEventListener("paste", async (event) => {
  if (event.target.closest?.("input")) return;
  const text = event.clipboardData.getData("text/plain").trim();
  const found = await transferred(event.clipboardData);
  if (found.length) take(found);
  else if (text.includes("://")) look(text);
});
