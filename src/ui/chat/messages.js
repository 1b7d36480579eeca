// The messages of a room as one user has them: each once, in their order, and behind them those not stored yet.

/** Copies a template. Returns the copy, and its named parts. */
export function fromTemplate(id, words) {
  const copy = document.getElementById(id).content.cloneNode(true);
  copy.querySelectorAll("[data-word]").forEach((part) => (part.textContent = words[part.dataset.word]));
  copy.querySelectorAll("[data-label]").forEach((part) => part.setAttribute("aria-label", words[part.dataset.label]));
  const parts = [...copy.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]);
  return [copy, Object.fromEntries(parts)];
}

/** Sets a text. A screen reader speaks of each change, even to the same text. */
export function say(part, text) {
  if (part.textContent !== text) part.textContent = text;
}

export class Messages {
  #log;
  #words;
  #lang;
  #actions;
  #stored = new Map();
  #pending = new Map();
  #readUpTo = {};
  #rows = new Map();

  /** `actions`: `retry`, `edit` and `remove`, which get a message. */
  constructor(log, words, lang, actions) {
    this.#log = log;
    this.#words = words;
    this.#lang = lang;
    this.#actions = actions;
  }

  /** The userIds of this user and of the other. */
  of(me, peer) {
    Object.assign(this, { me, peer });
  }

  clear() {
    this.#stored.clear();
  }

  /** Keeps a message of the hub, unless a later state of it is here. */
  take(message) {
    const known = this.#stored.get(message.seq);
    if (!known || (known.version <= message.version && !known.isDeleted)) this.#stored.set(message.seq, message);
    this.#pending.delete(message.tempId);
    Object.keys(message.readBy ?? {}).forEach((userId) => this.read(userId, message.seq));
  }

  /** A user has read up to a number. Marks never go back. */
  read(userId, seq) {
    this.#readUpTo[userId] = Math.max(seq, this.#readUpTo[userId] ?? 0);
  }

  /** Makes a message of this user that is not stored yet. */
  write(text) {
    const tempId = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const message = { tempId, senderId: this.me, createdAt: new Date().toISOString(), content: { text } };
    this.#pending.set(tempId, message);
    return message;
  }

  /** Sets how far a message is that is not here as stored: SENDING, SAVED or FAILED, and why. */
  setStatus(tempId, status, why = "") {
    const message = this.#pending.get(tempId);
    if (message && this.#words[status]) Object.assign(message, { status, why });
  }

  /** The messages of which it is not known whether they are stored. */
  get sending() {
    return [...this.#pending.values()].filter((message) => message.status === "SENDING");
  }

  /** The other's messages that this user has not read, in no order. */
  get unread() {
    const readUpTo = this.#readUpTo[this.me] ?? 0;
    return [...this.#stored.values()].filter((message) => message.senderId !== this.me && message.seq > readUpTo);
  }

  /** Shows all. The log stays at its end if it is there; what is added before its beginning moves nothing. */
  draw(isBefore = false) {
    const log = this.#log;
    const below = log.scrollHeight - log.scrollTop;
    const stored = [...this.#stored.values()].sort((a, b) => a.seq - b.seq);
    const rows = [...stored, ...this.#pending.values()].map((message) => this.#row(message));
    rows.forEach((row, n) => {
      if (log.children[n] !== row) log.insertBefore(row, log.children[n] ?? null);
    });
    while (log.children.length > rows.length) log.lastElementChild.remove();
    if (isBefore) log.scrollTop = log.scrollHeight - below;
    else if (below - log.clientHeight < 50) log.scrollTop = log.scrollHeight;
  }

  /** The row of a message. It stays the same when the message is stored, edited or read. */
  #row(message) {
    const key = message.tempId ?? message.id;
    if (!this.#rows.has(key)) this.#rows.set(key, this.#newRow(key));
    const row = this.#rows.get(key);
    row.message = message;
    const { element, parts } = row;
    const { isDeleted = false, status, content } = message;
    const isOwn = message.senderId === this.me;
    const isRead = message.seq <= this.#readUpTo[this.peer];
    element.className = `${isOwn ? "own" : ""} ${isDeleted ? "deleted" : ""} ${status.toLowerCase()}`;
    say(parts.text, isDeleted ? this.#words.removed : content.text);
    const at = new Date(message.createdAt);
    Object.assign(parts.time, { dateTime: message.createdAt, title: at.toLocaleString(this.#lang) });
    say(parts.time, at.toLocaleTimeString(this.#lang, { timeStyle: "short" }));
    const states = [content.isEdited && this.#words.edited, isOwn && this.#words[isRead ? "READ" : status]];
    say(parts.state, isDeleted ? "" : states.filter(Boolean).join(" · "));
    parts.state.title = message.why ?? "";
    parts.retry.hidden = status !== "FAILED";
    parts.edit.hidden = parts.remove.hidden = !isOwn || !message.id || isDeleted;
    return element;
  }

  #newRow(key) {
    const [copy, parts] = fromTemplate("message", this.#words);
    const row = { element: copy.firstElementChild, parts, message: null };
    row.element.dataset.key = key;
    for (const [name, act] of Object.entries(this.#actions)) {
      parts[name].addEventListener("click", () => act(row.message));
    }
    return row;
  }
}
