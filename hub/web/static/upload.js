// A folder or an archive that is dropped or chosen, sent with its progress. Without this the form sends the same by itself.
const form = document.getElementById("upload");
const drop = document.getElementById("drop");
let dropped = []; // [path, file]

const sizes = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

async function walk(entry, path) {
  if (entry.isFile) return [[path + entry.name, await new Promise((good, bad) => entry.file(good, bad))]];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred entries at a time
    const some = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!some.length) break;
    for (const each of some) found.push(...await walk(each, `${path}${entry.name}/`));
  }
  return found;
}

function chosen() {
  if (dropped.length) return dropped;
  const inputs = [...form.querySelectorAll("input[type=file]")];
  return inputs.flatMap((input) => [...input.files].map((file) => [file.webkitRelativePath || file.name, file]));
}

function show() {
  const files = chosen();
  const total = files.reduce((sum, [, file]) => sum + file.size, 0);
  const lines = files.slice(0, 8).map(([path, file]) => `${path}, ${sizes(file.size)}`);
  if (files.length > 8) lines.push(`and ${files.length - 8} more`);
  if (files.length) lines.push(`${files.length} file${files.length > 1 ? "s" : ""}, ${sizes(total)} in all`);
  document.getElementById("chosen").replaceChildren(...lines.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    dropped = [];
    for (const other of form.querySelectorAll("input[type=file]")) if (other !== input) other.value = "";
    show();
  });
}
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  // Both are asked for before the first wait, after which the browser has forgotten them.
  const plain = [...event.dataTransfer.files].map((file) => [file.name, file]);
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  dropped = entries.length ? (await Promise.all(entries.map((entry) => walk(entry, "")))).flat() : plain;
  for (const input of form.querySelectorAll("input[type=file]")) input.value = "";
  show();
});

show(); // files may have been chosen before this script was there

function suggested(files) {
  const [path] = files[0];
  if (path.includes("/")) return path.split("/")[0];
  return files.length === 1 ? path.replace(/\.(zip|tar|tar\.gz|tgz)$/i, "") : "";
}

form.addEventListener("submit", (event) => {
  const files = chosen();
  if (!files.length) return; // the server says what is missing
  event.preventDefault();
  const body = new FormData();
  body.append("namespace", form.elements.namespace.value);
  body.append("suggested", suggested(files));
  for (const [path, file] of files) body.append("files", file, path);
  const request = new XMLHttpRequest();
  const said = document.getElementById("said");
  document.getElementById("sending").hidden = false;
  document.getElementById("send").disabled = true;
  request.upload.addEventListener("progress", (step) => {
    document.getElementById("sent").value = step.loaded / step.total;
    said.textContent = step.loaded < step.total ? `${sizes(step.loaded)} of ${sizes(step.total)} sent` : "All is sent; it is being read and stored.";
  });
  const failed = (text) => {
    document.getElementById("sending").hidden = true;
    document.getElementById("send").disabled = false;
    const old = document.getElementById("problem");
    const alert = Object.assign(document.createElement("p"), { id: "problem", className: "callout bad", textContent: text });
    alert.setAttribute("role", "alert");
    if (old) old.replaceWith(alert); else form.before(alert);
  };
  request.addEventListener("error", () => failed("The connection broke; send it again."));
  request.addEventListener("load", () => {
    if (!(request.getResponseHeader("Content-Type") || "").includes("html")) {
      failed(request.responseText.startsWith("{") ? JSON.parse(request.responseText).error.message : "That did not work; send it again.");
      return;
    }
    const answer = new DOMParser().parseFromString(request.responseText, "text/html");
    const problem = answer.getElementById("problem");
    if (problem) { failed(problem.textContent); return; }
    document.title = answer.title;
    const main = document.querySelector("main");
    main.replaceChildren(...answer.querySelector("main").childNodes);
    main.focus();
    scrollTo(0, 0);
  });
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "text/html");
  request.send(body);
});
