"use strict";
(() => {
  const $ = (id) => document.getElementById("tv-" + id);
  const root = document.getElementById("tv");
  const isPage = document.body.classList.contains("tv-page");
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    // the only way any text of the trace enters the page
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  };

  // ---- numbers -------------------------------------------------------------------------------

  const DASH = "–";
  /** Four significant digits. */
  const shown = (x) => {
    if (x === null || x === undefined || Number.isNaN(x)) return DASH;
    if (!Number.isFinite(x)) return x < 0 ? "-∞" : "∞";
    if (x === 0) return "0";
    const size = Math.abs(x);
    return size >= 1e-4 && size < 9999.5 ? x.toPrecision(4) : x.toExponential(3);
  };
  /** A stored decimal number with exactly the digits that are stored. */
  const shownDecimal = (digits, places) => {
    if (digits === 0) return "0";
    const x = digits / 10 ** places;
    const length = String(Math.abs(digits)).length;
    return places >= 0 && places <= length + 3 ? x.toFixed(places) : x.toExponential(length - 1);
  };
  const percent = (x) => (x === null ? DASH : (100 * x).toPrecision(3) + " %");

  async function unpack(id) {
    const text = atob(document.getElementById(id).textContent.trim());
    const data = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) data[i] = text.charCodeAt(i);
    const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** The columns of a group, from planes of one byte a token. */
  async function readGroup(index, number) {
    const data = await unpack("tv-group-" + number);
    const about = index.groups[number];
    const total = about.completions.reduce((sum, completion) => sum + completion.length, 0);
    let at = 0;
    const plane = () => data.subarray(at, (at += total));
    const joined = (width) => {
      const bytes = new Uint8Array(4 * total);
      for (let k = 0; k < width; k++) {
        const one = plane();
        for (let i = 0; i < total; i++) bytes[4 * i + k] = one[i];
      }
      return new DataView(bytes.buffer);
    };
    const all = (read) => Array.from({ length: total }, (_, i) => read(4 * i));
    const group = { total, decimals: {} };
    let view = joined(index.planes.rank);
    group.rank = Uint32Array.from(all((i) => view.getUint32(i, true)));
    for (const name of about.columns) {
      view = joined(name === "thr" ? 4 : 2);
      if (name === "thr") {
        group.thr = Float32Array.from(all((i) => view.getFloat32(i, true)));
      } else {
        const digits = Int16Array.from(all((i) => view.getInt16(i, true)));
        const places = Int8Array.from(plane());
        group.decimals[name] = { digits, places };
        group[name] = Float64Array.from(digits, (d, i) => d / 10 ** places[i]);
      }
    }
    return group;
  }

  // ---- state, all of it in the address -------------------------------------------------------

  const DEFAULTS = {
    group: "", colour: "thr", only: "all", p: "0", c: "0", blanks: "", sort: "trace", reverse: "",
    search: "", token: "", theme: "",
  };
  const state = { ...DEFAULTS };
  const choices = (id) => [...$(id).options].map((option) => option.value);

  function readAddress() {
    const given = location.hash.slice(1);
    if (!given.includes("=")) return;
    const found = new URLSearchParams(given);
    for (const key of Object.keys(DEFAULTS)) state[key] = found.get(key) ?? DEFAULTS[key];
    for (const key of ["colour", "only", "sort"]) {
      if (!choices(key).includes(state[key])) state[key] = DEFAULTS[key];
    }
    for (const key of ["p", "c"]) {
      const [low, high] = [+$(key).min, +$(key).max];
      const x = Number(state[key]);
      state[key] = String(Number.isFinite(x) ? Math.min(high, Math.max(low, x)) : 0);
    }
  }

  function writeAddress() {
    const kept = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
    const hash = kept.length ? new URLSearchParams(kept).toString() : "group=";
    history.replaceState(null, "", "#" + hash);
  }

  // ---- colours: Okabe-Ito over the neutral of the page ---------------------------------------

  const BLUE = [0, 114, 178], VERMILION = [213, 94, 0], GREEN = [0, 158, 115];
  const PURPLE = [204, 121, 167], ORANGE = [230, 159, 0], SKY = [86, 180, 233];
  const MODES = {
    thr: { title: "THR", high: BLUE, low: VERMILION, ends: ["exploration", "exploitation"] },
    ratio: { title: "THR / τ", high: BLUE, low: VERMILION, ends: ["exploration", "exploitation"] },
    entropy: { title: "entropy (nats)", high: ORANGE },
    logprob: { title: "log-probability (nats)", low: SKY },
    effective: {
      title: "effective advantage", high: GREEN, low: PURPLE, ends: ["less likely", "more likely"],
    },
  };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const isDark = () => {
    if (printing) return false;
    const asked = document.documentElement.dataset.theme;
    return asked ? asked === "dark" : prefersDark.matches;
  };
  const linear = (x) => (x <= 10 ? x / 3295 : ((x / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

  /** Background and ink of a strength in [-1, 1]. */
  function colourOf(strength, mode) {
    const neutral = isDark() ? [24, 27, 33] : [255, 255, 255];
    const pole = strength < 0 ? mode.low : mode.high;
    const share = Math.min(1, Math.abs(strength));
    const mixed = pole ? neutral.map((x, i) => Math.round(x + (pole[i] - x) * share)) : neutral;
    const bright = light(mixed);
    const darkInk = (bright + 0.05) / 0.05 > 1.05 / (bright + 0.05);
    return { back: share < 0.004 ? "" : `rgb(${mixed.join(", ")})`, ink: darkInk ? "#111" : "#fff" };
  }

  // ---- the group shown -----------------------------------------------------------------------

  let index, about, group, cards = [], chosen = -1, cursor = null, lookAt = null;
  const read = new Map();

  const factor = () => (Number(state.c) === 0 ? 1 : 10 ** Number(state.c));
  const tauOf = (given) => (typeof given === "string" ? Number(given) : given);
  const isDominant = (i) =>
    Boolean(group.thr) && about.tau !== null && Math.abs(group.thr[i]) > factor() * tauOf(about.tau);
  const ratio = (i) => {
    const tau = tauOf(about.tau);
    return group.thr && tau > 0 && Number.isFinite(tau) ? group.thr[i] / tau : NaN;
  };
  /** Equation 5. */
  const effective = (i, advantage) => {
    if (!group.thr) return NaN;
    return isDominant(i) ? (1 + Math.sign(group.thr[i]) * Number(state.p)) * advantage : 0;
  };
  function valueOf(i, advantage) {
    if (state.colour === "thr") return group.thr ? group.thr[i] : NaN;
    if (state.colour === "ratio") return ratio(i);
    if (state.colour === "effective") return effective(i, advantage);
    return group[state.colour][i];
  }

  /** The size that 98 of 100 tokens of the group do not exceed. */
  function most(column) {
    group.most ??= {};
    if (!(column in group.most)) {
      const sizes = Float64Array.from(group[column] ?? [], Math.abs).sort();
      const found = sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] : 0;
      group.most[column] = found || sizes[sizes.length - 1] || 1;
    }
    return group.most[column];
  }
  /** From values to strengths in [-1, 1], and the values that the legend names. */
  function scale() {
    if (state.colour === "ratio") {
      const strength = (x) => (Math.sign(x) * Math.log1p(Math.abs(x))) / Math.log1p(10);
      return { strength, ticks: [-10, -1, 0, 1, 10] };
    }
    if (state.colour === "effective") {
      const sizes = about.completions.map((completion) => Math.abs(completion.advantage));
      const limit = 2 * Math.max(...sizes) || 1;
      return { strength: (x) => x / limit, ticks: [-limit, -limit / 2, 0, limit / 2, limit] };
    }
    const limit = most(state.colour);
    const strength = (x) => Math.sign(x) * Math.sqrt(Math.abs(x) / limit);
    if (state.colour === "thr") return { strength, ticks: [-limit, -limit / 4, 0, limit / 4, limit] };
    const end = state.colour === "entropy" ? limit : -limit;
    return { strength, ticks: end > 0 ? [0, end / 4, end] : [end, end / 4, 0] };
  }

  /** The tokens of one completion in pieces of whole characters. */
  function piecesOf(first, length) {
    const several = new Map(
      about.joined.filter(([at]) => at >= first && at < first + length).map((j) => [j[0], j]),
    );
    const pieces = [];
    for (let i = first; i < first + length; ) {
      const [, count, text] = several.get(i) ?? [i, 1, index.texts[group.rank[i]]];
      pieces.push({ first: i, count, text });
      i += count;
    }
    return pieces;
  }
  const GLYPHS = { " ": "·", "\n": "⏎\n", "\t": "⇥", "\u00a0": "⍽" };
  const glyphs = (text) => text.replace(/[ \n\t\u00a0]/g, (blank) => GLYPHS[blank]);
  // lines may break before the glyph of a space, as they do at the space
  const display = (text) => (text === "" ? "∅" : state.blanks ? glyphs(text).replace(/·/g, "\u200b·") : text);

  function fill(card) {
    if (card.spans) {
      if (card.isStale) paintCard(card, scale().strength);
      return;
    }
    card.pieces = piecesOf(card.first, card.about.length);
    card.spans = card.pieces.map((piece, at) => {
      const span = make("span", "", display(piece.text));
      span.dataset.at = at;
      return span;
    });
    card.text.style.minHeight = "";
    card.text.replaceChildren(...card.spans);
    if (card.spans.length) card.spans[0].tabIndex = 0;
    else card.text.append(make("span", "tv-none", "no tokens"));
    paintCard(card, scale().strength);
  }

  function paintCard(card, strength) {
    const mode = MODES[state.colour];
    const { advantage } = card.about;
    card.isStale = false;
    for (const [at, piece] of card.pieces.entries()) {
      let value = NaN, at_ = piece.first;
      for (let i = piece.first; i < piece.first + piece.count; i++) {
        const x = valueOf(i, advantage);
        if (Number.isNaN(value) || Math.abs(x) > Math.abs(value)) [value, at_] = [x, i];
      }
      const span = card.spans[at];
      const { back, ink } = colourOf(Number.isNaN(value) ? 0 : strength(value), mode);
      span.style.backgroundColor = back;
      span.style.color = back ? ink : "";
      let dominant = null;
      for (let i = piece.first; i < piece.first + piece.count; i++) if (isDominant(i)) dominant ??= i;
      if (isDominant(at_)) dominant = at_;
      const high = dominant !== null && group.thr[dominant] >= 0;
      const off = state.colour === "effective" && group.thr && dominant === null;
      span.classList.toggle("tv-high", high);
      span.classList.toggle("tv-low", dominant !== null && !high);
      span.classList.toggle("tv-off", Boolean(off));
    }
  }

  function paint() {
    root.toggleAttribute("data-dark", isDark());
    if (!group) return;
    const { strength } = scale();
    for (const card of cards) {
      // the others are painted when they are scrolled to
      if (card.spans && card.isNear) paintCard(card, strength);
      else card.isStale = true;
    }
    paintLegend();
    if (lookAt) showCard(lookAt.card, lookAt.at);
  }

  function paintLegend() {
    const mode = MODES[state.colour], { strength, ticks } = scale();
    const [low, high] = [strength(ticks[0]), strength(ticks[ticks.length - 1])];
    const bar = make("div", "tv-bar"), box = make("div", "tv-scale");
    for (let k = 0; k < 41; k++) {
      const cell = make("i");
      cell.style.backgroundColor = colourOf(low + ((high - low) * k) / 40, mode).back;
      bar.append(cell);
    }
    box.append(bar);
    for (const tick of ticks) {
      const label = make("span", "tv-tick", String(Number(tick.toPrecision(2))));
      label.style.left = (100 * (strength(tick) - low)) / (high - low) + "%";
      box.append(label);
    }
    const name = make("p", "", mode.title);
    if (mode.ends) name.append(make("span", "tv-ends", ` (${mode.ends[0]} to ${mode.ends[1]})`));
    const parts = [name, box];
    if (group.thr) {
      const cue = make("p");
      cue.append(make("span", "tv-cue", "dominant, THR > 0"), "  ");
      cue.append(make("span", "tv-cue-low", "dominant, THR < 0"));
      parts.push(cue);
    }
    const warnings = warningsOf();
    if (warnings) parts.push(make("p", "tv-warn", warnings));
    $("legend").replaceChildren(...parts);
  }

  function warningsOf() {
    if (!group.thr) return "No completion is correct: THR, τ and Equation 5 are undefined here.";
    const parts = [];
    if (about.completions.every((completion) => completion.correct)) {
      parts.push("Every completion is correct: all advantages are 0.");
    }
    if (tauOf(about.tau) <= 0) {
      parts.push("τ is not above 0: (nearly) every token is dominant, THR / τ is undefined.");
    }
    return parts.join(" ");
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const card = cards.find((one) => one.node === entry.target);
        if (!card) continue;
        card.isNear = entry.isIntersecting;
        if (card.isNear) fill(card);
      }
    },
    { rootMargin: "300px" },
  );

  function layGrid() {
    seen.disconnect();
    hideCard();
    let first = 0;
    cards = [];
    for (const completion of about.completions) {
      const start = first;
      first += completion.length;
      if (state.only !== "all" && completion.correct !== (state.only === "correct")) continue;
      const node = make("article", "tv-c"), head = make("header");
      head.append(make("b", "", "#" + completion.rollout_id));
      head.append(completion.correct ? make("span", "tv-right", "✓ correct") : make("span", "tv-wrong", "✗ incorrect"));
      if (completion.extracted !== null) head.append(make("span", "", "answer " + completion.extracted));
      if (completion.advantage !== null) head.append(make("span", "", "A = " + shown(completion.advantage)));
      head.append(make("span", "", completion.length + (completion.length === 1 ? " token" : " tokens")));
      if (completion.retained !== null) head.append(make("span", "", percent(completion.retained) + " retained"));
      if (completion.finish_reason === "length") head.append(make("span", "", "cut off"));
      if (completion.finish_reason === "abort") head.append(make("span", "", "aborted"));
      if (completion.verify_status !== "ok") head.append(make("span", "", "verifier: " + completion.verify_status));
      const text = make("div", "tv-text");
      text.dir = "auto";
      text.style.minHeight = Math.min(416, 24 * Math.ceil(completion.length / 12) + 14) + "px";
      node.append(head, text);
      cards.push({ node, text, about: completion, first: start, spans: null });
    }
    const none = cards.length ? [] : [make("p", "tv-none", `No completion is ${state.only === "correct" ? "correct" : "incorrect"}.`)];
    $("grid").replaceChildren(...cards.map((card) => card.node), ...none);
    for (const card of cards) seen.observe(card.node);
  }

  function layHead() {
    $("question").textContent = about.question;
    const right = about.completions.filter((completion) => completion.correct).length;
    const facts = [
      ["answer", about.answer],
      ["correct", `${right} of ${about.completions.length}`],
      ["q", shown(about.q)],
      ["τ", shown(tauOf(about.tau))],
      ["balance", shown(about.balance)],
      ["retained", percent(about.retained)],
      ["tokens", group.total.toLocaleString("en")],
      ["step", about.step],
      ["from", [about.dataset, about.level].filter((x) => x !== null).join(", ")],
      ["id", about.id],
    ];
    $("facts").replaceChildren(
      ...facts.filter(([, value]) => value !== null).map(([name, value]) => {
        const row = make("div");
        row.append(make("dt", "", name), make("dd", "", value));
        return row;
      }),
    );
    $("facts").firstChild.title = "the gold answer";
  }

  const keyOf = (one) => (one.step === null ? one.id : `${one.id}@${one.step}`);

  async function show(number) {
    chosen = number;
    if (!read.has(number)) {
      const found = await readGroup(index, number);
      read.set(number, found);
    }
    // another question may have been asked for meanwhile
    if (chosen !== number) return;
    [about, group] = [index.groups[number], read.get(number)];
    cursor = null;
    layHead();
    layGrid();
    paint();
    markChosen();
    root.dataset.ready = String(number);
  }

  async function go(number) {
    if (number < 0 || number >= index.groups.length) return;
    state.group = keyOf(index.groups[number]);
    state.token = "";
    writeAddress();
    await show(number);
  }

  // ---- the list of questions -----------------------------------------------------------------

  let order = [];

  function layList() {
    const wanted = state.search.toLowerCase();
    const holds = (one) =>
      [one.question, one.answer, keyOf(one), one.dataset, one.level].some((text) => String(text ?? "").toLowerCase().includes(wanted));
    order = index.groups.map((_, i) => i).filter((i) => !wanted || holds(index.groups[i]));
    const turn = state.reverse ? -1 : 1;
    const value = (i) => (state.sort === "trace" ? i : index.groups[i][state.sort]);
    order.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      // what is undefined comes last either way
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return turn * (x - y) || a - b;
    });
    $("list").replaceChildren(...order.map(listItem));
    const total = index.groups.length, noun = index.groups.some((g) => g.step !== null) ? "group" : "question";
    const many = `${total} ${noun}${total === 1 ? "" : "s"}`;
    $("count").textContent = order.length === total ? many : `${order.length} of ${many}`;
    markChosen();
  }

  function listItem(i) {
    const one = index.groups[i], item = make("li"), button = make("button");
    button.type = "button";
    button.dataset.group = i;
    const right = one.completions.filter((completion) => completion.correct).length;
    const facts = [`${right}/${one.completions.length} correct`];
    if (one.balance !== null) facts.push("balance " + one.balance.toFixed(2));
    if (one.retained !== null) facts.push(percent(one.retained) + " retained");
    if (one.step !== null) facts.unshift("step " + one.step);
    button.append(make("b", "", one.question), make("small", "", facts.join(" · ")));
    item.append(button);
    return item;
  }

  function markChosen() {
    for (const button of $("list").querySelectorAll("button")) {
      const is = Number(button.dataset.group) === chosen;
      if (is) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  function stepQuestion(by, andFocus) {
    const at = order.indexOf(chosen);
    const next = order[at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by))];
    if (next === undefined) return;
    go(next);
    const button = $("list").querySelector(`[data-group="${next}"]`);
    if (andFocus) button.focus();
    else button.scrollIntoView({ block: "nearest" });
  }

  // ---- the card of a token -------------------------------------------------------------------

  function rowsOf(i, completion) {
    const rows = [];
    const stored = (name, column) => {
      const held = group.decimals[column];
      if (held) rows.push([name, shownDecimal(held.digits[i], held.places[i])]);
    };
    const rank = group.rank[i], text = index.texts[rank];
    rows.push(["token", text === "" ? "∅" : glyphs(text).replace(/\n/g, "")], ["id", index.ids[rank]]);
    rows.push(["class", index.classes[rank]]);
    rows.push(["position, from 0", String(i - completion.first)]);
    rows.push(["THR", group.thr ? shown(group.thr[i]) : "undefined"]);
    stored("THR from itself", "thr_self");
    stored("THR from its completion", "thr_within");
    stored("error of THR at most", "thr_error");
    rows.push(["THR / τ", shown(ratio(i))]);
    if (group.thr) rows.push(["dominant", isDominant(i) ? "yes" : "no"]);
    stored("entropy, nats", "entropy");
    stored("log-probability, nats", "logprob");
    rows.push(["probability", Math.exp(group.logprob[i]).toPrecision(3)]);
    rows.push(["advantage A", shown(completion.about.advantage)]);
    rows.push(["effective advantage", shown(effective(i, completion.about.advantage))]);
    return rows;
  }

  function showCard(card, at) {
    lookAt = { card, at };
    const piece = card.pieces[at], table = make("table");
    const columns = [];
    for (let i = piece.first; i < piece.first + piece.count; i++) columns.push(rowsOf(i, card));
    for (const [k, [name]] of columns[0].entries()) {
      const row = make("tr", k === 0 ? "tv-token" : ""), head = make("th", "", name);
      head.scope = "row";
      row.append(head, ...columns.map((rows) => make("td", "", rows[k][1])));
      table.append(row);
    }
    const box = $("card");
    box.replaceChildren(table);
    if (piece.count > 1) box.prepend(make("p", "", `${glyphs(piece.text)} in ${piece.count} tokens`));
    box.hidden = false;
    const span = card.spans[at].getClientRects()[0] ?? card.spans[at].getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = box;
    const below = span.bottom + 8 + height < innerHeight;
    box.style.left = Math.max(8, Math.min(span.left, document.documentElement.clientWidth - width - 8)) + "px";
    box.style.top = Math.max(8, below ? span.bottom + 8 : span.top - height - 8) + "px";
  }

  function hideCard() {
    lookAt = null;
    $("card").hidden = true;
  }

  const whereIs = (target) => {
    const span = target instanceof Element ? target.closest(".tv-text > span[data-at]") : null;
    const card = span && cards.find((one) => one.text === span.parentNode);
    return card ? { card, at: Number(span.dataset.at) } : null;
  };

  function moveTo(card, at, isQuiet) {
    fill(card);
    if (!card.spans.length) return;
    at = Math.min(card.spans.length - 1, Math.max(0, at));
    leave();
    cursor = { card, at };
    const span = card.spans[at];
    span.tabIndex = 0;
    span.classList.add("tv-at");
    span.setAttribute("aria-describedby", "tv-card");
    if (!isQuiet) span.focus({ preventScroll: true });
    span.scrollIntoView({ block: "nearest", inline: "nearest" });
    showCard(card, at);
    state.token = `${card.about.rollout_id}.${card.pieces[at].first - card.first}`;
    writeAddress();
  }

  function leave() {
    if (!cursor) return;
    const span = cursor.card.spans[cursor.at];
    span.classList.remove("tv-at");
    span.removeAttribute("aria-describedby");
    if (cursor.at > 0) span.removeAttribute("tabindex");
    cursor = null;
  }

  function forget() {
    leave();
    hideCard();
    if (!state.token) return;
    state.token = "";
    writeAddress();
  }

  function nextDominant(card, at, by) {
    let to = at + by;
    const has = ({ first, count }) => {
      for (let i = first; i < first + count; i++) if (isDominant(i)) return true;
      return false;
    };
    while (to >= 0 && to < card.pieces.length && !has(card.pieces[to])) to += by;
    return to >= 0 && to < card.pieces.length ? to : at;
  }

  function tokenKey(event) {
    const { card, at } = cursor, by = /Left|Up/.test(event.key) ? -1 : 1;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      moveTo(card, event.shiftKey ? nextDominant(card, at, by) : at + by);
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const other = cards[cards.indexOf(card) + by];
      if (other) moveTo(other, at);
    } else if (event.key === "Home" || event.key === "End") {
      moveTo(card, event.key === "Home" ? 0 : card.spans.length - 1);
    } else return;
    event.preventDefault();
  }

  // ---- SVG of the view -----------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const clear = (colour) => !colour || colour === "transparent" || colour === "rgba(0, 0, 0, 0)";

  /** Every box with a background or a border, and every line of text, where the browser has it. */
  function drawing() {
    const main = $("main"), origin = main.getBoundingClientRect();
    const svg = document.createElementNS(SVG, "svg");
    const put = (name, values) => {
      const node = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(values)) {
        node.setAttribute(key, typeof value === "number" ? +value.toFixed(2) : value);
      }
      svg.append(node);
      return node;
    };
    const [width, height] = [Math.ceil(origin.width), Math.ceil(origin.height)];
    svg.setAttribute("xmlns", SVG);
    svg.setAttribute("viewBox", `-8 -8 ${width + 16} ${height + 16}`);
    svg.setAttribute("width", width + 16);
    svg.setAttribute("height", height + 16);
    put("rect", { x: -8, y: -8, width: width + 16, height: height + 16, fill: isDark() ? "#101216" : "#fff" });
    const pen = document.createElement("canvas").getContext("2d");
    const box = (element) => {
      const style = getComputedStyle(element);
      if (style.display === "none") return null;
      const inline = style.display === "inline";
      for (const r of element.getClientRects()) {
        const [x, y] = [r.left - origin.left, r.top - origin.top];
        if (!clear(style.backgroundColor)) put("rect", { x, y, width: r.width, height: r.height, fill: style.backgroundColor });
        const under = parseFloat(style.borderBottomWidth);
        if (under && !clear(style.borderBottomColor)) {
          const dash = style.borderBottomStyle === "dashed" ? { "stroke-dasharray": "3 2" } : {};
          const line = { stroke: style.borderBottomColor, "stroke-width": under, ...dash };
          if (inline || !parseFloat(style.borderTopWidth)) {
            put("line", { x1: x, x2: x + r.width, y1: y + r.height - under / 2, y2: y + r.height - under / 2, ...line });
          } else put("rect", { x, y, width: r.width, height: r.height, fill: "none", ...line });
        }
      }
      return style;
    };
    const words = (node, style) => {
      const range = document.createRange(), text = node.data;
      let start = 0, top = null;
      const flush = (stop) => {
        const part = text.slice(start, stop).replace(/\n/g, "");
        range.setStart(node, start);
        range.setEnd(node, stop);
        // a line's white space may be a box of its own
        const r = range.getBoundingClientRect();
        if (!r.width || !part.trim()) return;
        pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
        const m = pen.measureText(part);
        const [up, down] = [m.fontBoundingBoxAscent, m.fontBoundingBoxDescent];
        const line = put("text", {
          x: r.left - origin.left, y: r.top - origin.top + (r.height - up - down) / 2 + up, fill: style.color,
          "font-family": style.fontFamily, "font-size": style.fontSize, "font-weight": style.fontWeight,
          textLength: r.width, lengthAdjust: "spacingAndGlyphs", "xml:space": "preserve",
          opacity: node.parentNode.classList.contains("tv-off") ? 0.55 : 1,
        });
        line.textContent = part;
      };
      range.selectNodeContents(node);
      if (range.getClientRects().length <= 1) return flush(text.length);
      for (let k = 0; k < text.length; k++) {
        range.setStart(node, k);
        range.setEnd(node, k + 1);
        const r = range.getClientRects()[0];
        if (r && top !== null && Math.abs(r.top - top) > 2) {
          flush(k);
          start = k;
        }
        if (r) top = r.top;
      }
      return flush(text.length);
    };
    const walk = (element) => {
      if (element.classList.contains("tv-controls")) return;
      const style = box(element);
      if (!style) return;
      for (const child of element.childNodes) {
        if (child.nodeType === Node.TEXT_NODE) words(child, style);
        else if (child.nodeType === Node.ELEMENT_NODE) walk(child);
      }
    };
    for (const child of main.children) walk(child);
    return new XMLSerializer().serializeToString(svg);
  }

  function saveSvg() {
    root.classList.add("tv-whole");
    cards.forEach(fill);
    const text = drawing();
    root.classList.remove("tv-whole");
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    link.download = `${index.run}-${keyOf(about)}-${state.colour}.svg`.replace(/[^\w.@-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // ---- controls ------------------------------------------------------------------------------

  function setControls() {
    for (const key of ["colour", "only", "sort", "search", "p", "c"]) $(key).value = state[key];
    $("blanks").checked = Boolean(state.blanks);
    $("reverse").setAttribute("aria-pressed", String(Boolean(state.reverse)));
    $("reverse").textContent = state.reverse ? "↓" : "↑";
    const p = Number(state.p), c = factor();
    $("p-value").textContent = (p > 0 ? "+" : "") + p.toFixed(2);
    $("c-value").textContent = c === 1 ? "1" : c.toPrecision(3);
    $("c").setAttribute("aria-valuetext", `${c.toPrecision(3)} times tau`);
    if (state.theme) document.documentElement.dataset.theme = state.theme;
  }

  let frame = 0;
  function repaintSoon() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(paint);
  }

  const change = (key, after) => (event) => {
    const { target } = event;
    state[key] = target.type === "checkbox" ? (target.checked ? "1" : "") : target.value;
    setControls();
    writeAddress();
    after();
  };

  const BINDINGS = [
    ["colour", "change", repaintSoon], ["p", "input", repaintSoon], ["c", "input", repaintSoon],
    ["sort", "change", layList], ["search", "input", layList],
    ["only", "change", () => { forget(); layGrid(); paint(); }],
    ["blanks", "change", () => {
      for (const card of cards) card.spans?.forEach((span, k) => { span.textContent = display(card.pieces[k].text); });
    }],
  ];

  function bind() {
    for (const [key, event, after] of BINDINGS) $(key).addEventListener(event, change(key, after));
    const press = (id, act) => $(id).addEventListener("click", act);
    press("reverse", () => {
      state.reverse = state.reverse ? "" : "1";
      setControls();
      writeAddress();
      layList();
    });
    press("reset", () => {
      [state.p, state.c] = [DEFAULTS.p, DEFAULTS.c];
      setControls();
      writeAddress();
      paint();
    });
    press("svg", saveSvg);
    press("help-open", () => $("help").showModal());
    press("theme", () => {
      state.theme = isDark() ? "light" : "dark";
      setControls();
      writeAddress();
      paint();
    });
    press("list", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      go(Number(button.dataset.group));
      if (root.classList.contains("tv-narrow")) $("side").open = false;
    });
    const grid = $("grid");
    grid.addEventListener("pointerover", (event) => {
      const found = whereIs(event.target);
      if (found) showCard(found.card, found.at);
    });
    grid.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "touch") return;
      if (cursor) showCard(cursor.card, cursor.at);
      else hideCard();
    });
    grid.addEventListener("click", (event) => {
      const found = whereIs(event.target);
      if (found) moveTo(found.card, found.at);
      else forget();
    });
    grid.addEventListener("focusin", (event) => {
      const found = whereIs(event.target);
      if (found && !(cursor && cursor.card === found.card && cursor.at === found.at)) moveTo(found.card, found.at);
    });
    document.addEventListener("scroll", () => lookAt && showCard(lookAt.card, lookAt.at), { passive: true, capture: true });
    document.addEventListener("keydown", onKey);
    addEventListener("hashchange", restore);
    prefersDark.addEventListener("change", paint);
    new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    addEventListener("beforeprint", () => { if (isPage) { printing = true; paint(); cards.forEach(fill); } });
    addEventListener("afterprint", () => { printing = false; paint(); });
    new ResizeObserver(() => {
      const narrow = root.clientWidth < 900;
      if (root.classList.contains("tv-narrow") === narrow && root.dataset.sized) return;
      root.dataset.sized = "1";
      root.classList.toggle("tv-narrow", narrow);
      $("side").open = !narrow;
    }).observe(root);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !group) return;
    const { target, key } = event;
    // within a larger page only what happens in the viewer is the viewer's
    if (!isPage && !root.contains(target)) return;
    if (target === $("search")) {
      if (key === "Escape") target.blur();
      if (key === "Enter" && order.length) go(order[0]);
      if (key === "ArrowDown") $("list").querySelector("button")?.focus();
      return;
    }
    if (target.matches("input, select, textarea")) return;
    if (key === "?") return $("help").showModal();
    if (key === "/") {
      event.preventDefault();
      $("side").open = true;
      return $("search").focus();
    }
    if (key === "Escape") {
      document.activeElement?.blur();
      return forget();
    }
    if (cursor) return tokenKey(event);
    if (target.closest(".tv-list") && /^Arrow(Up|Down)$/.test(key)) {
      event.preventDefault();
      return stepQuestion(key === "ArrowUp" ? -1 : 1, true);
    }
    if (key === "ArrowLeft" || key === "ArrowRight") return stepQuestion(key === "ArrowLeft" ? -1 : 1, false);
    if (key === "Enter" && !target.closest("button, summary") && cards.length) {
      event.preventDefault();
      moveTo(cards[0], 0);
    }
  }

  // ---- start ---------------------------------------------------------------------------------

  async function restore() {
    readAddress();
    const { token } = state;
    setControls();
    layList();
    const asked = index.groups.findIndex((one) => keyOf(one) === state.group);
    await show(asked < 0 ? order[0] ?? 0 : asked);
    const [rollout, position] = token.split(".").map(Number);
    const card = token ? cards.find((one) => one.about.rollout_id === rollout) : null;
    if (!card) return;
    // what stands above has its height before the token is scrolled to
    cards.slice(0, cards.indexOf(card) + 1).forEach(fill);
    const at = card.pieces.findIndex(({ first, count }) => first + count - card.first > position);
    moveTo(card, at, true);
  }

  async function start() {
    try {
      index = JSON.parse(new TextDecoder().decode(await unpack("tv-index")));
      bind();
      await restore();
    } catch (error) {
      $("failed").hidden = false;
      $("failed").textContent = `The token viewer could not start: ${error.message}`;
      throw error;
    }
  }
  start();
})();
