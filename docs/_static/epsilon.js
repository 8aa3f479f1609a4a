/* The ε slider of the site: shows pictures that were computed when the site was built. Needs no server and no kernel. */
"use strict";

(() => {
  const arrived = {}; // name -> {pieces, pictures}
  const waiting = {}; // name -> promise of it
  const base = document.currentScript.src.replace(/[^/]*$/, "epsilon/");

  window.pplFrames = (name, content) => { arrived[name] = content; };

  function load(name) {
    waiting[name] ||= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = base + name + ".js";
      script.onload = () => resolve(arrived[name]);
      script.onerror = () => { delete waiting[name]; reject(new Error("cannot read " + script.src)); };
      document.head.append(script);
    });
    return waiting[name];
  }

  const join = (content, number) => content.pictures[number].map((piece) => content.pieces[piece]).join("");

  function start(root) {
    const find = (selector) => root.querySelector(selector);
    const labels = JSON.parse(root.dataset.labels);
    const slider = find("#ppl-epsilon"), query = find(".ppl-query"), method = find(".ppl-method");
    const message = find(".ppl-message[role]"), controls = [slider, query, method, find(".ppl-next")];
    let prediction = 0; // 0: none, else 1 + number of the shape
    let asked = 0;

    async function show() {
      const place = Number(slider.value), turn = ++asked;
      find(".ppl-label").textContent = labels[place];
      slider.setAttribute("aria-valuetext", labels[place]);
      try {
        const [views, curves] = await Promise.all([load(`${method.value}-${query.value}`), load(`${method.value}-curve`)]);
        if (turn !== asked) return; // the reader has moved on
        find(".ppl-picture").innerHTML = join(views, place);
        find(".ppl-curve").innerHTML = join(curves, prediction * labels.length + place);
        message.textContent = "";
      } catch (error) {
        find(".ppl-picture").innerHTML = find(".ppl-curve").innerHTML = ""; // the picture of another ε would be a lie
        message.textContent = "✗ " + error.message;
      }
    }

    function unlock(number) {
      prediction = number;
      find(".ppl-predict").hidden = true;
      find(".ppl-pictures").hidden = false;
      controls.forEach((control) => { control.disabled = false; });
      slider.focus();
      return show();
    }

    find(".ppl-take").addEventListener("click", () => {
      const answer = find("input[name=ppl-shape]:checked");
      if (answer) unlock(1 + Number(answer.value));
      else message.textContent = "Choose one of the shapes first, or skip.";
    });
    find(".ppl-skip").addEventListener("click", () => unlock(0));
    slider.addEventListener("input", show);
    query.addEventListener("change", show);
    method.addEventListener("change", show);
    find(".ppl-next").addEventListener("click", () => {
      query.selectedIndex = (query.selectedIndex + 1) % query.options.length;
      show();
    });
  }

  const begin = () => document.querySelectorAll(".ppl-static").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
