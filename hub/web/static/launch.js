// Where scripts run: the list of adapters narrows as one types and says how many are ticked, and a base is shown as soon as it is chosen.
function pick() {
  const narrow = document.getElementById("narrow");
  const ticked = document.getElementById("ticked");
  if (!narrow) return;
  const rows = [...document.querySelectorAll("table.pick tbody tr")];
  const count = () => {
    const chosen = document.querySelectorAll("#modules input[type=checkbox]:checked").length;
    ticked.textContent = `${chosen} of ${rows.length} chosen`;
  };
  narrow.oninput = () => {
    const wanted = narrow.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.querySelector("label").textContent.toLowerCase().includes(wanted) && !row.querySelector("input").checked;
  };
  // Enter in the search is no wish to start the job.
  narrow.onkeydown = (event) => { if (event.key === "Enter") event.preventDefault(); };
  document.getElementById("modules").onchange = count;
  count();
}
pick();
document.body.addEventListener("htmx:afterSettle", pick);
for (const select of document.querySelectorAll("select[data-go]")) select.onchange = () => select.form.submit();
const problem = document.getElementById("problem");
if (problem) problem.scrollIntoView({ block: "center" });
