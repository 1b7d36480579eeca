// <notihub-inbox token="…" src="https://hub.example" lang="ko"></notihub-inbox>: a bell with the number of unread items,
// and the inbox of the user whose token it has. Without `src` it talks to the server that this script came from.
//
// A token ends. Then the element sends the event `notihub-token-expired`: set the attribute `token` anew, and it goes on
// from the last event it has. Other events: `notihub-counts` (detail: the counts) and `notihub-open` (detail: the item;
// cancelable: the element then does not follow its link).
(() => {
  "use strict";
  if (customElements.get("notihub-inbox")) return;

  const HOME = document.currentScript?.src ? new URL(document.currentScript.src).origin : location.origin;
  const PAGE = 20;
  // The hub sends at least a comment every 15 seconds: a connection that is silent for longer is dead.
  const SILENT_MS = 45_000;
  // Browsers open six connections to a server at most. A hidden tab gives its own back, and resumes when it is shown.
  const HIDDEN_MS = 30_000;

  const WORDS = {
    en: {
      inbox: "Notifications",
      unread: (n) => `${n} unread`,
      all: "All",
      onlyUnread: "Unread",
      readAll: "Mark all as read",
      read: "Mark as read",
      markUnread: "Mark as unread",
      archive: "Archive",
      more: "Show older",
      empty: "Nothing here yet.",
      emptyUnread: "Everything is read.",
      loading: "Loading…",
      offline: "The connection was lost. Trying again…",
      expired: "Please sign in again.",
      failed: "This did not work. Please try again.",
      arrived: (t) => `New: ${t}`,
      now: "just now",
    },
    ko: {
      inbox: "알림",
      unread: (n) => `읽지 않음 ${n}개`,
      all: "전체",
      onlyUnread: "읽지 않음",
      readAll: "모두 읽음으로 표시",
      read: "읽음으로 표시",
      markUnread: "읽지 않음으로 표시",
      archive: "보관",
      more: "이전 알림 보기",
      empty: "알림이 없습니다.",
      emptyUnread: "모두 읽었습니다.",
      loading: "불러오는 중입니다…",
      offline: "연결이 끊겼습니다. 다시 연결하고 있습니다…",
      expired: "다시 로그인해 주세요.",
      failed: "처리하지 못했습니다. 다시 시도해 주세요.",
      arrived: (t) => `새 알림: ${t}`,
      now: "방금",
    },
  };

  const SHEET = new CSSStyleSheet();
  SHEET.replaceSync(`
    :host { --page: #fff; --text: #1d2129; --quiet: #5b6472; --line: #d9dee6; --new: #eef4fd; --accent: #0b5cc0;
      --accent-text: #fff; position: relative; display: inline-block; font: 0.9375rem/1.45 system-ui, sans-serif; }
    @media (prefers-color-scheme: dark) { :host(:not([theme="light"])) { --page: #1a1e24; --text: #e3e7ed; --quiet: #9aa5b4;
      --line: #363d4a; --new: #1e2b3f; --accent: #7db4ff; --accent-text: #10141a; } }
    :host([theme="dark"]) { --page: #1a1e24; --text: #e3e7ed; --quiet: #9aa5b4; --line: #363d4a; --new: #1e2b3f;
      --accent: #7db4ff; --accent-text: #10141a; }
    button { font: inherit; color: inherit; background: none; border: 0; padding: .35rem .5rem; border-radius: 6px;
      cursor: pointer; }
    button:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
    .bell { position: relative; padding: .5rem; line-height: 0; }
    .badge { position: absolute; top: 0; right: 0; min-width: 1.1rem; padding: 0 .25rem; border-radius: 1rem;
      background: var(--accent); color: var(--accent-text); font-size: .7rem; line-height: 1.1rem; text-align: center; }
    .panel { position: absolute; right: 0; top: 100%; z-index: 1000; width: min(24rem, calc(100vw - 1rem));
      max-height: min(32rem, 80vh); display: flex; flex-direction: column; background: var(--page); color: var(--text);
      border: 1px solid var(--line); border-radius: 10px; box-shadow: 0 8px 30px rgb(0 0 0 / .2); overflow: hidden; }
    :host([align="left"]) .panel { right: auto; left: 0; }
    [hidden] { display: none !important; }
    header { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem; padding: .5rem .75rem;
      border-bottom: 1px solid var(--line); }
    h2 { flex: 1; margin: 0; font-size: 1rem; }
    [aria-pressed="true"] { background: var(--new); font-weight: 600; }
    .quiet { color: var(--quiet); font-size: .8125rem; }
    .note { margin: 0; padding: .5rem .75rem; }
    .scroll { overflow-y: auto; }
    ul { list-style: none; margin: 0; padding: 0; }
    li { display: flex; align-items: flex-start; border-bottom: 1px solid var(--line); }
    li.new { background: var(--new); }
    .open { flex: 1; min-width: 0; display: flex; gap: .6rem; text-align: left; padding: .6rem .75rem; border-radius: 0; }
    .open img { width: 2.5rem; height: 2.5rem; object-fit: cover; border-radius: 6px; }
    .text { min-width: 0; overflow-wrap: anywhere; white-space: pre-line; }
    .title { display: block; }
    li.new .title { font-weight: 600; }
    .deeds { display: flex; flex-direction: column; padding: .35rem; }
    .deeds button { padding: .1rem .35rem; line-height: 1.4; }
    .more { width: 100%; padding: .6rem; color: var(--accent); border-radius: 0; }
    .spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  `);

  const SVG = "http://www.w3.org/2000/svg";
  const BELL = "M12 3a6 6 0 0 0-6 6v4l-2 3h16l-2-3V9a6 6 0 0 0-6-6zm-2 15a2 2 0 0 0 4 0";

  /** An element with attributes, listeners (functions) and children. Texts stay texts: nothing is parsed as HTML. */
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false)
        made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  /** The address, if a browser may follow it. */
  function webAddress(text) {
    try {
      const url = new URL(text, location.href);
      return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
    } catch {
      return null;
    }
  }

  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  class NotihubInbox extends HTMLElement {
    static observedAttributes = ["token", "src", "lang"];
    #items = new Map();
    #rows = new Map();
    #counts = { unread: 0, unreadIsMore: false };
    #cursor = null;
    #filter = "ALL";
    #loaded = false;
    #late = null;
    #lastId = null;
    #connection = null;
    #hiddenTimer = null;
    #parts = {};

    connectedCallback() {
      if (!this.shadowRoot) this.attachShadow({ mode: "open" }).adoptedStyleSheets = [SHEET];
      this.#build();
      document.addEventListener("visibilitychange", this.#onVisibility);
      document.addEventListener("pointerdown", this.#onOutside);
      this.#restart();
    }

    disconnectedCallback() {
      document.removeEventListener("visibilitychange", this.#onVisibility);
      document.removeEventListener("pointerdown", this.#onOutside);
      clearTimeout(this.#hiddenTimer);
      this.#connection?.abort();
    }

    attributeChangedCallback(name, before, after) {
      if (!this.shadowRoot || !this.isConnected || before === after) return;
      if (name === "lang") {
        this.#build();
        return;
      }
      // A renewed token of the same user goes on where the last one ended; another user begins anew.
      if (name === "src" || subject(before) !== subject(after)) {
        this.#lastId = null;
        this.#loaded = false;
        this.#items.clear();
      }
      this.#restart();
      if (!this.#parts.panel.hidden && !this.#loaded) this.#load();
    }

    get #words() {
      const lang = this.closest("[lang]")?.lang || document.documentElement.lang || navigator.language;
      return lang.toLowerCase().startsWith("ko") ? WORDS.ko : WORDS.en;
    }

    get #lang() {
      return this.#words === WORDS.ko ? "ko" : "en";
    }

    // --- requests ------------------------------------------------------------------------------------------------

    #request(path, { method = "GET", body, headers = {}, signal } = {}) {
      const base = this.getAttribute("src") || HOME;
      const sent = { authorization: `Bearer ${this.getAttribute("token")}`, ...headers };
      if (body !== undefined) sent["content-type"] = "application/json";
      const text = body === undefined ? undefined : JSON.stringify(body);
      return fetch(new URL(path, base), {
        method,
        headers: sent,
        body: text,
        signal,
        cache: "no-store",
        credentials: "omit",
      });
    }

    /** The JSON of an answer; null if it failed, which the user is shown. */
    async #ask(path, options) {
      try {
        const answer = await this.#request(path, options);
        if (answer.status === 401) this.#expire();
        else if (answer.ok) {
          this.#note("");
          return await answer.json();
        } else this.#note(this.#words.failed);
      } catch {
        this.#note(this.#words.failed);
      }
      return null;
    }

    #expire() {
      this.#connection?.abort();
      this.#note(this.#words.expired);
      this.dispatchEvent(new CustomEvent("notihub-token-expired", { bubbles: true, composed: true }));
    }

    // --- the stream ----------------------------------------------------------------------------------------------

    #onVisibility = () => {
      clearTimeout(this.#hiddenTimer);
      if (document.hidden) this.#hiddenTimer = setTimeout(() => this.#connection?.abort(), HIDDEN_MS);
      else if (this.#connection?.signal.aborted) this.#restart();
    };

    #restart() {
      this.#connection?.abort();
      if (!this.getAttribute("token")) return;
      this.#connection = new AbortController();
      this.#listen(this.#connection.signal);
    }

    /** Keeps the stream open until `signal`, and resumes it after the last event. */
    async #listen(signal) {
      let wait = 500;
      while (!signal.aborted) {
        try {
          const headers = this.#lastId ? { "last-event-id": this.#lastId } : {};
          const cut = new AbortController();
          const answer = await this.#request("/v1/inbox/stream", {
            headers,
            signal: AbortSignal.any([signal, cut.signal]),
          });
          if (answer.status === 401 || answer.status === 403) return this.#expire();
          if (!answer.ok) throw new Error(`status ${answer.status}`);
          this.#note("");
          wait = 500;
          await this.#read(answer.body, cut, signal);
        } catch {
          // Cut, refused or not reachable: all are tried again.
        }
        if (signal.aborted) return;
        this.#note(this.#words.offline);
        await sleep(wait + Math.random() * wait);
        wait = Math.min(wait * 2, 15_000);
      }
    }

    async #read(body, cut, signal) {
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      let silent;
      try {
        for (;;) {
          silent = setTimeout(() => cut.abort(), SILENT_MS);
          const { value, done } = await reader.read();
          clearTimeout(silent);
          if (done || signal.aborted) return;
          text += value;
          const frames = text.split(/\r?\n\r?\n/);
          text = frames.pop();
          frames.forEach((frame) => this.#frame(frame));
        }
      } finally {
        clearTimeout(silent);
      }
    }

    #frame(frame) {
      const fields = {};
      for (const line of frame.split(/\r?\n/)) {
        const [, name, value] = /^([^:]+): ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = name === "data" && fields.data !== undefined ? `${fields.data}\n${value}` : value;
      }
      if (fields.id) this.#lastId = fields.id;
      if (fields.event === "expired") return this.#expire();
      if (fields.event === "reset") return this.#loaded && this.#load();
      if (!fields.data) return undefined;
      const data = JSON.parse(fields.data);
      if (fields.event === "counts") this.#setCounts(data);
      else if (fields.event === "changed" && data.change === "READ_ALL") {
        for (const item of this.#items.values()) if (!data.type || item.type === data.type) item.read = true;
        this.#draw();
      } else if (fields.event === "item") {
        if (data.change === "ARRIVED") this.#parts.spoken.textContent = this.#words.arrived(data.title || data.body);
        // While a list is on its way, it may be older than the event.
        if (this.#late) this.#late.push(data);
        else if (this.#loaded) this.#take(data);
      }
      return undefined;
    }

    #setCounts(counts) {
      this.#counts = counts;
      const { badge, bell } = this.#parts;
      badge.textContent = counts.unreadIsMore ? `${counts.unread}+` : counts.unread;
      badge.hidden = counts.unread === 0;
      bell.setAttribute("aria-label", `${this.#words.inbox}, ${this.#words.unread(badge.textContent)}`);
      this.dispatchEvent(new CustomEvent("notihub-counts", { detail: counts, bubbles: true, composed: true }));
    }

    // --- items ---------------------------------------------------------------------------------------------------

    async #load(cursor = null) {
      this.#late = [];
      if (!cursor) this.#note(this.#words.loading);
      const query = new URLSearchParams({ filter: this.#filter, limit: PAGE, ...(cursor ? { cursor } : {}) });
      const page = await this.#ask(`/v1/inbox?${query}`);
      const late = this.#late ?? [];
      this.#late = null;
      if (!page) return;
      if (!cursor) this.#items.clear();
      page.items.forEach((item) => this.#items.set(item.id, item));
      this.#cursor = page.nextCursor;
      this.#loaded = true;
      late.forEach((item) => this.#take(item, false));
      this.#draw();
    }

    /** Takes over an item as it stands now. */
    #take(item, draw = true) {
      const known = this.#items.has(item.id);
      const listed = !item.archivedAt && !item.snoozedUntil && (this.#filter === "ALL" || known || !item.read);
      if (!listed) this.#items.delete(item.id);
      else if (known || item.change === "ARRIVED" || item.seq > this.#oldestSeq()) this.#items.set(item.id, item);
      if (draw) this.#draw();
    }

    #oldestSeq() {
      return this.#cursor ? Math.min(...[...this.#items.values()].map((item) => item.seq)) : 0;
    }

    async #change(item, deed) {
      const changed = await this.#ask(`/v1/inbox/${item.id}/${deed}`, { method: "POST" });
      if (changed) this.#take(changed);
    }

    async #follow(item) {
      const opening = new CustomEvent("notihub-open", {
        detail: item,
        bubbles: true,
        composed: true,
        cancelable: true,
      });
      const goes = this.dispatchEvent(opening);
      if (!item.read) await this.#change(item, "read");
      const url = goes && item.actionUrl ? webAddress(item.actionUrl) : null;
      if (url) location.assign(url);
    }

    // --- drawing -------------------------------------------------------------------------------------------------

    #build() {
      const words = this.#words;
      const icon = document.createElementNS(SVG, "svg");
      const path = document.createElementNS(SVG, "path");
      for (const [name, value] of [
        ["viewBox", "0 0 24 24"],
        ["width", "24"],
        ["height", "24"],
        ["aria-hidden", "true"],
      ]) {
        icon.setAttribute(name, value);
      }
      path.setAttribute("d", BELL);
      for (const [name, value] of [
        ["fill", "none"],
        ["stroke", "currentColor"],
        ["stroke-width", "1.8"],
      ])
        path.setAttribute(name, value);
      icon.append(path);
      const badge = make("span", { class: "badge", "aria-hidden": "true", hidden: true });
      const bell = make(
        "button",
        {
          class: "bell",
          type: "button",
          "aria-expanded": "false",
          "aria-haspopup": "dialog",
          click: () => this.#toggle(),
        },
        icon,
        badge,
      );
      const filter = (name, word) =>
        make(
          "button",
          { type: "button", "aria-pressed": String(this.#filter === name), click: () => this.#setFilter(name) },
          word,
        );
      const filters = { ALL: filter("ALL", words.all), UNREAD: filter("UNREAD", words.onlyUnread) };
      const readAll = make(
        "button",
        { type: "button", class: "quiet", click: () => this.#ask("/v1/inbox/read-all", { method: "POST" }) },
        words.readAll,
      );
      const note = make("p", { class: "note quiet", role: "status", hidden: true });
      const list = make("ul");
      const empty = make("p", { class: "note quiet", hidden: true });
      const more = make(
        "button",
        { class: "more", type: "button", hidden: true, click: () => this.#load(this.#cursor) },
        words.more,
      );
      const panel = make(
        "div",
        { class: "panel", role: "dialog", "aria-label": words.inbox, hidden: true, keydown: (e) => this.#onKey(e) },
        make("header", {}, make("h2", {}, words.inbox), filters.ALL, filters.UNREAD, readAll),
        note,
        make("div", { class: "scroll" }, list, empty, more),
      );
      const spoken = make("p", { class: "spoken", "aria-live": "polite" });
      const wasOpen = this.#parts.panel && !this.#parts.panel.hidden;
      this.#parts = { badge, bell, filters, note, list, empty, more, panel, spoken };
      this.#rows.clear();
      this.shadowRoot.replaceChildren(bell, panel, spoken);
      this.#setCounts(this.#counts);
      if (wasOpen) this.#toggle();
    }

    #note(text) {
      this.#parts.note.textContent = text;
      this.#parts.note.hidden = text === "";
    }

    #setFilter(name) {
      this.#filter = name;
      for (const [of, button] of Object.entries(this.#parts.filters))
        button.setAttribute("aria-pressed", String(of === name));
      this.#load();
    }

    #toggle(back = false) {
      const { panel, bell, filters } = this.#parts;
      panel.hidden = !panel.hidden;
      bell.setAttribute("aria-expanded", String(!panel.hidden));
      if (panel.hidden) {
        if (back) bell.focus();
        return;
      }
      if (this.#loaded) this.#draw();
      else this.#load();
      this.#ask("/v1/inbox/seen", { method: "POST" });
      filters[this.#filter].focus();
    }

    #onOutside = (event) => {
      if (!this.#parts.panel.hidden && !event.composedPath().includes(this)) this.#toggle();
    };

    #onKey(event) {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.#toggle(true);
      } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        const buttons = [...this.#parts.list.querySelectorAll(".open")];
        const row = this.shadowRoot.activeElement?.closest("li");
        const at = buttons.findIndex((button) => button.closest("li") === row);
        const next = buttons[at < 0 ? 0 : at + (event.key === "ArrowDown" ? 1 : -1)];
        next?.focus();
        event.preventDefault();
      }
    }

    #draw() {
      const { list, empty, more, panel } = this.#parts;
      if (panel.hidden) return;
      const items = [...this.#items.values()].sort((a, b) => b.seq - a.seq);
      const focused = this.shadowRoot.activeElement?.closest("li");
      const next = focused?.nextElementSibling ?? focused?.previousElementSibling;
      const wanted = new Set(items.map((item) => item.id));
      for (const [id, row] of this.#rows) {
        if (wanted.has(id)) continue;
        row.remove();
        this.#rows.delete(id);
      }
      items.forEach((item, n) => {
        const text = JSON.stringify(item);
        let row = this.#rows.get(item.id);
        if (row?.dataset.drawn !== text) {
          const drawn = this.#row(item);
          drawn.dataset.drawn = text;
          if (row) {
            const active = [...row.querySelectorAll("button")].indexOf(this.shadowRoot.activeElement);
            row.replaceWith(drawn);
            if (active >= 0) drawn.querySelectorAll("button")[active]?.focus();
          }
          this.#rows.set(item.id, (row = drawn));
        }
        if (list.children[n] !== row) list.insertBefore(row, list.children[n] ?? null);
      });
      // The row that had the focus is gone: its neighbour gets it, so that the keyboard does not begin anew.
      if (focused && !focused.isConnected && !this.shadowRoot.activeElement) next?.querySelector(".open")?.focus();
      empty.textContent = this.#filter === "UNREAD" ? this.#words.emptyUnread : this.#words.empty;
      empty.hidden = !this.#loaded || items.length > 0;
      more.hidden = !this.#cursor;
    }

    #row(item) {
      const words = this.#words;
      const image = item.imageUrl ? webAddress(item.imageUrl) : null;
      const picture = image && make("img", { src: image, alt: "", loading: "lazy", referrerpolicy: "no-referrer" });
      const time = make(
        "time",
        { class: "quiet", datetime: item.arrivedAt, title: new Date(item.arrivedAt).toLocaleString(this.#lang) },
        ago(item.arrivedAt, this.#lang),
      );
      const title = make("span", { class: "title" }, item.title || item.body);
      const body = item.title ? make("span", {}, item.body) : null;
      const open = make(
        "button",
        { class: "open", type: "button", click: () => this.#follow(item) },
        picture || null,
        make("span", { class: "text" }, title, body, body ? make("br") : null, time),
      );
      const deed = (name, label, sign) =>
        make(
          "button",
          { type: "button", title: label, "aria-label": label, click: () => this.#change(item, name) },
          sign,
        );
      const read = item.read ? deed("unread", words.markUnread, "○") : deed("read", words.read, "●");
      return make(
        "li",
        { class: item.read ? null : "new" },
        open,
        make("span", { class: "deeds" }, read, deed("archive", words.archive, "✕")),
      );
    }
  }

  /** The user that a token is of; the token's signature is the hub's concern. */
  function subject(token) {
    try {
      const claims = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
      return `${claims.iss}/${claims.sub}`;
    } catch {
      return null;
    }
  }

  function ago(time, lang) {
    const format = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
    const seconds = (new Date(time) - Date.now()) / 1000;
    for (const [unit, size] of [
      ["day", 86400],
      ["hour", 3600],
      ["minute", 60],
    ]) {
      if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
    }
    return (lang === "ko" ? WORDS.ko : WORDS.en).now;
  }

  customElements.define("notihub-inbox", NotihubInbox);
})();
