// Follows a running job: the server sends every step by its sequence number, and the state at the end. The page without this is
// complete, only still; at the end it is fetched again, as the server knows best how a finished job looks.
const live = document.getElementById("live");
const stream = new EventSource(live.dataset.stream);
stream.addEventListener("progress", (event) => {
  const step = JSON.parse(event.data);
  const numbers = Object.entries(step.numbers).map(([name, value]) => `${name} ${value.toPrecision(4)}`);
  document.getElementById("state").textContent = "running";
  document.getElementById("state").className = "state running";
  document.getElementById("step").textContent = [`${step.phase} ${step.step}/${step.total}`, ...numbers].join("  ·  ");
  const bar = document.getElementById("bar");
  bar.max = step.total || 1;
  bar.value = step.step;
});
stream.addEventListener("state", (event) => {
  if (["succeeded", "failed", "cancelled", "gone"].includes(JSON.parse(event.data).state)) {
    stream.close();
    location.reload();
  }
});
