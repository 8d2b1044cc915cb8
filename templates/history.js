"use strict";
// Shows the alarm of a report whose next night is overdue; the page was written before it was.
for (const alarm of document.querySelectorAll("[data-deadline]")) {
  if (Date.now() > Date.parse(alarm.dataset.deadline)) {
    alarm.hidden = false;
    document.querySelector("header.top").classList.add("fail");
  }
}
