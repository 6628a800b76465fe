// Loads the page again every five seconds and takes over what is new, unless somebody is at work in it.
const pause = document.getElementById("pause");
const parts = ["heading", "live", "loaded"];
let paused = false;

const busy = () => paused || document.hidden || document.getElementById("live").contains(document.activeElement);

async function look() {
  if (busy()) return;
  const answer = await fetch(location.href);
  if (answer.redirected) return location.reload();
  if (!answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (busy()) return;
  for (const id of parts) {
    const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
    if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
  }
  document.title = page.title;
}

const lost = () => { document.getElementById("loaded").textContent = "This is old: notifyd does not answer."; };

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", paused);
});
setInterval(() => look().catch(lost), 5000);
