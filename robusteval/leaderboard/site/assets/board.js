// Sorting, filtering and drawing of one board; the page is complete without it. State lives in the URL hash.
(function () {
  "use strict";
  var source = document.getElementById("board-data");
  if (!source) { return; }
  var data = JSON.parse(source.textContent);
  var tables = Array.prototype.slice.call(document.querySelectorAll("table.ranking"));
  var state = read();
  document.documentElement.classList.add("scripted");

  function read() {
    var found = {};
    window.location.hash.replace(/^#/, "").split("&").forEach(function (part) {
      var at = part.indexOf("=");
      if (at > 0) {
        try { found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (error) { /* not ours */ }
      }
    });
    return found;
  }

  function keep() {
    var hash = Object.keys(state).filter(function (key) { return state[key]; }).sort().map(function (key) {
      return key + "=" + encodeURIComponent(state[key]);
    }).join("&");
    window.history.replaceState(null, "", hash ? "#" + hash : window.location.pathname + window.location.search);
  }

  function sort() {
    var wanted = (state.sort || "").split(":"), key = wanted[0], down = wanted[1] === "down";
    tables.forEach(function (table) {
      var body = table.tBodies[0];
      var rows = Array.prototype.slice.call(body.rows);
      var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
      var column = heads.findIndex(function (head) { return head.dataset.key === key; });
      heads.forEach(function (head, index) {
        if (index === column) { head.setAttribute("aria-sort", down ? "descending" : "ascending"); }
        else { head.removeAttribute("aria-sort"); }
      });
      rows.sort(function (first, second) {
        if (column < 0) { return first.dataset.order - second.dataset.order; }
        var a = first.cells[column].dataset.value, b = second.cells[column].dataset.value;
        if (a === "" || b === "") { return a === b ? first.dataset.order - second.dataset.order : (a === "" ? 1 : -1); }
        var numbers = heads[column].dataset.kind === "number";
        var order = numbers ? a - b : a.localeCompare(b);
        return (down ? -order : order) || first.dataset.order - second.dataset.order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  }

  function filter() {
    var words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
    tables.forEach(function (table) {
      Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
        var text = row.textContent.toLowerCase();
        var hit = words.every(function (word) { return text.indexOf(word) >= 0; });
        hit = hit && !(state.extra === "no" && row.dataset.extra === "true");
        hit = hit && !(state.flags === "no" && row.dataset.flags);
        row.hidden = !hit;
        shown += hit ? 1 : 0;
      });
    });
    document.getElementById("shown").textContent = shown + " shown";
  }

  function choose(id, move) {
    state.row = id || "";
    tables.forEach(function (table) {
      Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
        var mine = row.dataset.id === id;
        row.classList.toggle("chosen", mine);
        if (mine && move) { row.scrollIntoView({ block: "center" }); }
      });
    });
  }

  function colour(name) { return window.getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function staircase(points) {
    var sorted = points.slice().sort(function (a, b) { return b.x - a.x || b.y - a.y; });
    var best = -Infinity, xs = [], ys = [];
    sorted.forEach(function (point) {
      if (point.y > best) {
        if (xs.length) { xs.push(point.x); ys.push(best); }
        xs.push(point.x); ys.push(point.y); best = point.y;
      }
    });
    return { x: xs, y: ys };
  }

  function draw() {
    var place = document.getElementById("plot");
    if (!place || !window.Plotly || !data.columns.length) { return; }
    var pair = (state.pair || data.pairs[0] || "").split(",");
    var byKey = {};
    data.columns.forEach(function (column) { byKey[column.key] = column; });
    var first = byKey[pair[0]] || data.columns[0], second = byKey[pair[1]] || data.columns[1] || first;
    document.getElementById("x-axis").value = first.key;
    document.getElementById("y-axis").value = second.key;
    var traces = [];
    data.groups.forEach(function (group) {
      var points = group.rows.filter(function (row) { return row.values[first.key] && row.values[second.key]; })
        .map(function (row) {
          var x = row.values[first.key], y = row.values[second.key];
          return { x: x[0], y: y[0], xe: x[1], ye: y[1], id: row.id, title: row.title };
        });
      if (!points.length) { return; }
      var list = function (key) { return points.map(function (point) { return point[key]; }); };
      var measured = group.name === "measured";
      traces.push({
        type: "scatter", mode: "markers", name: group.name, x: list("x"), y: list("y"),
        customdata: list("id"), text: points.map(function (point) {
          var rest = group.rests[first.key + "," + second.key];
          rest = rest && rest[point.id] ? "\nresidual " + rest[point.id] : "";
          return plain(point.id + "\n" + point.title + rest);
        }),
        hovertemplate: "%{text}<br>%{x:.2f}, %{y:.2f}<extra></extra>",
        error_x: { type: "data", array: list("xe"), thickness: 0.7, width: 2, color: colour("--soft") },
        error_y: { type: "data", array: list("ye"), thickness: 0.7, width: 2, color: colour("--soft") },
        marker: { size: measured ? 9 : 8, color: colour("--accent"), line: { width: 1.6, color: colour("--accent") },
          symbol: measured ? "circle" : "circle-open" }
      });
      var sign = function (column) { return column.higher ? 1 : -1; };
      var steps = staircase(points.map(function (point) {
        return { x: sign(first) * point.x, y: sign(second) * point.y };
      }));
      traces.push({ type: "scatter", mode: "lines", name: "front, " + group.name, hoverinfo: "skip",
        x: steps.x.map(function (x) { return sign(first) * x; }), y: steps.y.map(function (y) { return sign(second) * y; }),
        line: { color: colour("--warm"), width: 1.5 } });
      group.trends.forEach(function (trend) {
        if (trend.x === first.key && trend.y === second.key) {
          traces.push({ type: "scatter", mode: "lines", name: "fit, R² " + trend.r2, x: trend.xs, y: trend.ys,
            hoverinfo: "skip", line: { color: colour("--soft"), dash: "dash", width: 1.2 } });
        }
      });
    });
    if (first.unit === second.unit && first.key !== second.key) {
      traces.push({ type: "scatter", mode: "lines", name: "x = y", x: [0, 100], y: [0, 100], hoverinfo: "skip",
        line: { color: colour("--soft"), dash: "dot", width: 1 } });
    }
    var ink = colour("--ink"), axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line") };
    var range = function (key) {
      var values = [];
      data.groups.forEach(function (group) {
        group.rows.forEach(function (row) {
          var value = row.values[key];
          if (value) { values.push(value[0] - value[1], value[0] + value[1]); }
        });
      });
      var low = Math.min.apply(null, values), high = Math.max.apply(null, values), room = 0.06 * (high - low) || 1;
      return [low - room, high + room];
    };
    place.hidden = false;
    window.Plotly.react(place, traces, {
      margin: { l: 56, r: 8, t: 8, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink }, showlegend: true, legend: { orientation: "h", y: 1.08 }, hovermode: "closest",
      xaxis: Object.assign({ title: { text: plain(first.title) }, range: range(first.key) }, axis),
      yaxis: Object.assign({ title: { text: plain(second.title) }, range: range(second.key) }, axis)
    }, { responsive: true, displaylogo: false, displayModeBar: false }).then(function () {
      if (place.dataset.listens) { return; }
      place.dataset.listens = "yes";
      place.on("plotly_click", function (event) {
        var id = event.points[0].customdata;
        if (id) { choose(id, true); keep(); }
      });
    });
  }

  // Plotly reads a few tags and entities in its texts; foreign text must not bring any.
  function plain(text) {
    return text.split("\n").map(function (line) {
      return line.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").slice(0, 120);
    }).join("<br>");
  }

  tables.forEach(function (table) {
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row, index) { row.dataset.order = index; });
    table.tHead.addEventListener("click", function (event) {
      var head = event.target.closest("th");
      if (!head || !head.dataset.key) { return; }
      var now = (state.sort || "").split(":");
      var first = head.dataset.first || "up", other = first === "up" ? "down" : "up";
      state.sort = now[0] !== head.dataset.key ? head.dataset.key + ":" + first
        : (now[1] === first ? head.dataset.key + ":" + other : "");
      sort(); keep();
    });
    table.tBodies[0].addEventListener("click", function (event) {
      var row = event.target.closest("tr");
      if (row && !event.target.closest("a")) { choose(row.dataset.id, false); keep(); }
    });
  });
  var search = document.getElementById("search"), extra = document.getElementById("extra"), flags = document.getElementById("flags");
  search.addEventListener("input", function () { state.q = search.value; filter(); keep(); });
  extra.addEventListener("change", function () { state.extra = extra.checked ? "no" : ""; filter(); keep(); });
  flags.addEventListener("change", function () { state.flags = flags.checked ? "no" : ""; filter(); keep(); });
  ["x-axis", "y-axis"].forEach(function (id) {
    document.getElementById(id).addEventListener("change", function () {
      state.pair = document.getElementById("x-axis").value + "," + document.getElementById("y-axis").value;
      draw(); keep();
    });
  });
  function apply() {
    search.value = state.q || "";
    extra.checked = state.extra === "no";
    flags.checked = state.flags === "no";
    sort(); filter(); draw(); choose(state.row, true);
  }
  window.addEventListener("hashchange", function () { state = read(); apply(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  apply();
}());
