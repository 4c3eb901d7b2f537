// What every page gets where scripts run. Without it each page is complete: times are then of UTC, and text is copied by hand.

// Times in the reader's zone, as long as those of UTC that they replace, so that nothing moves.
const two = (number) => String(number).padStart(2, "0");
function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
    const local = `${day} ${two(time.getHours())}:${two(time.getMinutes())}`;
    if ("second" in element.dataset) element.textContent = time.toLocaleTimeString("en-GB");
    else if (!("age" in element.dataset)) element.textContent = local;
    element.title = `${local} (${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
  }
}

function copyButtons(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.onclick = async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    };
  }
}

function enliven(root) {
  localTimes(root);
  copyButtons(root);
  // A form that asks before it destroys.
  for (const form of root.querySelectorAll("form[data-confirm]")) {
    form.onsubmit = () => confirm(form.dataset.confirm);
  }
}

enliven(document);
document.body.addEventListener("htmx:load", (event) => enliven(event.detail.elt));

// An error's page is put in place of what was asked for, instead of nothing.
document.body.addEventListener("htmx:responseError", (event) => {
  const place = event.detail.target;
  const said = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html").querySelector("[role=alert]");
  const alert = Object.assign(document.createElement("p"), { className: "callout bad", textContent: said ? said.textContent : "That did not work; load the page again." });
  alert.setAttribute("role", "alert");
  place.replaceChildren(alert);
});

// Menus close when one looks elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
