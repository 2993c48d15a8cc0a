// The address of an entry page names the part that was opened last, and opens it again.
(function () {
  "use strict";
  function show() {
    var id = window.location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch (error) { return; }
    var part = id && document.getElementById(id);
    if (!part) { return; }
    if (part.tagName === "DETAILS") { part.open = true; }
    part.scrollIntoView();
  }
  Array.prototype.forEach.call(document.querySelectorAll("details[id]"), function (part) {
    part.querySelector("summary").addEventListener("click", function () {
      if (!part.open) { window.history.replaceState(null, "", "#" + encodeURIComponent(part.id)); }
    });
  });
  window.addEventListener("hashchange", show);
  show();
}());
