"use strict";
// Pages work without this script. It copies, prints times in the reader's zone, and keeps the live page up to date.

for (const button of document.querySelectorAll("button[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.classList.add("done");
      button.firstChild.textContent = "Copied";
    } catch {
      button.firstChild.textContent = "Select and copy";
    }
    setTimeout(() => {
      button.classList.remove("done");
      button.firstChild.textContent = "Copy";
    }, 2000);
  });
}

// A date that is picked is the one that is meant.
for (const date of document.querySelectorAll("input[type=date][data-chooses]")) {
  date.addEventListener("input", () => {
    document.getElementById(date.dataset.chooses).checked = true;
  });
}

// A form is sent once, however often its button is pressed.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}

const live = document.querySelector("[data-live]");
if (live) watch(live, document.querySelector("[data-live-notice]"));

// A stream that ends and begins again within a few seconds is no loss. One that is refused is asked for again later.
function watch(live, notice) {
  let lost;
  const source = new EventSource(live.dataset.live);
  source.addEventListener("state", (event) => {
    clearTimeout(lost);
    lost = undefined;
    notice.hidden = true;
    live.innerHTML = event.data;
  });
  source.addEventListener("end", () => {
    source.close();
    location.reload();
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      notice.hidden = false;
      setTimeout(watch, 5000, live, notice);
    } else {
      lost ??= setTimeout(() => { notice.hidden = false; }, 4000);
    }
  });
}
