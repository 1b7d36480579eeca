// The page of `notihub up --demo` with two users in a room. The link that the command prints carries a token of the
// partner "demo" behind its #, which a browser does not send. A page for real users never has a partner's token: its
// server signs one for each user.
import { Messages, fromTemplate, say } from "/chat/messages.js";
import { Connection } from "/chat/stomp.js";

const PARTNER = new URLSearchParams(location.hash.slice(1)).get("token");
const NAMES = { mina: "Mina", junho: "준호" };
const PAGE = 30;

/** In English and in Korean; {} is a name or a number. */
const WORDS = {
  log: ["Messages", "메시지"],
  write: ["Write a message", "메시지 입력"],
  send: ["Send", "보내기"],
  older: ["Show older", "이전 메시지 보기"],
  unread: ["{} unread", "읽지 않음 {}"],
  typing: ["{} is typing…", "{} 님이 입력하고 있습니다…"],
  ONLINE: ["{} is online", "{} 님 온라인"],
  AWAY: ["{} is away", "{} 님 자리 비움"],
  OFFLINE: ["{} is offline", "{} 님 오프라인"],
  SENDING: ["Sending…", "보내는 중…"],
  SAVED: ["Sent", "보냄"],
  READ: ["Read", "읽음"],
  FAILED: ["Not sent", "보내지 못함"],
  retry: ["Try again", "다시 보내기"],
  edit: ["Edit", "수정"],
  remove: ["Delete", "삭제"],
  edited: ["edited", "수정됨"],
  removed: ["This message was deleted.", "삭제된 메시지입니다."],
  editing: ["Editing a message. Esc leaves it as it is.", "메시지를 수정하고 있습니다. Esc를 누르면 취소됩니다."],
  connecting: ["Connecting…", "연결하고 있습니다…"],
  link: ["Open the link that notihub up --demo printed last.", "notihub up --demo가 마지막으로 출력한 링크를 여세요."],
};

/** Asks the hub. Returns the JSON of its answer; where that is in an envelope, the content. */
async function call(method, path, token, body, more = {}) {
  const headers = { authorization: `Bearer ${token}`, ...more };
  if (body) headers["content-type"] = "application/json";
  const signal = AbortSignal.timeout(15_000);
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  const read = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(read.detail ?? `status ${answer.status}`), { status: answer.status });
  return read.data ?? read;
}

const signIn = (user) => call("POST", `/v1/users/${user}/token`, PARTNER, {});

let room = null;
/** The one room of the two, and their userIds. The first page makes it, every other finds it. */
function openRoom() {
  const open = async () => {
    const [mina, junho] = await Promise.all([signIn("mina"), signIn("junho")]);
    const withJunho = { type: "INDIVIDUAL", userId: junho.userId };
    const { roomId } = await call("POST", "/api/v1/chatrooms", PARTNER, withJunho, { "x-user": "mina" });
    return { id: roomId, mina: mina.userId, junho: junho.userId };
  };
  room ??= open().catch((error) => {
    room = null;
    throw error;
  });
  return room;
}

/** The side that the user used last: only there it looks at what comes. */
let used = null;
const sides = [];

/** The view that one of the two has of the room. */
class Side {
  unread = 0;
  #position = undefined;
  #cursor = undefined;
  #editing = null;
  #looks = false;
  #typedAt = 0;
  #timers = {};

  constructor(section) {
    this.section = section;
    this.user = section.dataset.user;
    this.peer = this.user === "mina" ? "junho" : "mina";
    const words = Object.entries(WORDS).map(([name, [en, ko]]) => [name, section.lang === "ko" ? ko : en]);
    this.words = Object.fromEntries(words);
    const [copy, parts] = fromTemplate("side", this.words);
    section.append(copy);
    this.parts = parts;
    say(parts.name, NAMES[this.user]);
    this.messages = new Messages(parts.log, this.words, section.lang, {
      retry: (message) => this.#send(message),
      edit: (message) => this.#edit(message),
      remove: (message) => this.#remove(message),
    });
    parts.older.addEventListener("click", () => this.#load(this.#cursor));
    parts.text.addEventListener("input", () => this.#type(parts.text.value !== ""));
    parts.text.addEventListener("keydown", (event) => this.#key(event));
    parts.form.addEventListener("submit", (event) => this.#submit(event));
    const signInToRoom = async () => {
      this.room = await openRoom();
      this.messages.of(this.room[this.user], this.room[this.peer]);
      return signIn(this.user);
    };
    this.connection = new Connection(signInToRoom, () => this.#connected(), (error) => this.#lost(error));
    this.#lost();
    this.connection.open();
  }

  // --- the connection ------------------------------------------------------------------------------------------------

  #connected() {
    const { id } = this.room;
    this.connection.subscribe(`/topic/message/status/${id}`, (status) => this.#status(status));
    this.connection.subscribe(`/topic/typing/${id}`, ({ userId, isTyping }) => this.#peerTypes(userId, isTyping));
    this.connection.subscribe(`/topic/active/${id}`, (active) => this.#active(active));
    this.connection.send("/app/active", { roomId: id, active: this.#looks });
    const whole = (head) => this.#caughtUp({ "x-from-seq": head["x-head"], "x-epoch": head["x-epoch"] });
    this.connection.subscribe(`/topic/messages/${id}`, (event, of) => this.#event(event, of), this.#position, whole);
  }

  #lost(error) {
    const isOver = error?.status === 401 || error?.status === 403;
    this.#note(isOver ? this.words.link : "");
    say(this.parts.presence, "");
    this.#peerTypes(this.room?.[this.peer], false);
  }

  /** From here on nothing is missed. Marks are not repeated: the newest page is read again for them. */
  async #caughtUp(head) {
    this.#position ??= head;
    this.#note("");
    await this.#load();
    // With the same tempId: what was stored before the connection was lost is not stored again.
    this.messages.sending.forEach((message) => this.#send(message));
    if (!this.parts.text.disabled) return;
    this.parts.text.disabled = false;
    if (used === this) this.parts.text.focus();
  }

  #event(event, headers) {
    if (event.eventType === "MESSAGE_READ") {
      this.messages.read(event.userId, Number(event.messageId.split("-")[1]));
      return this.#draw();
    }
    this.#position = { "x-from-seq": headers["x-seq"], "x-epoch": headers["x-epoch"] };
    if (event.eventType === "RESET") {
      this.messages.clear();
      this.#cursor = undefined;
      return this.#load();
    }
    this.messages.take(event);
    this.#peerTypes(event.senderId, false);
    return this.#draw();
  }

  /** Asks the hub as this user. Returns null if that fails, which the page shows. */
  async #ask(method, path, body, more) {
    try {
      const answer = await call(method, path, this.connection.token, body, more);
      this.#note("");
      return answer;
    } catch (error) {
      this.#note(error.status ? error.message : "");
      return null;
    }
  }

  /** Shows a problem; without one, in which state this side is. */
  #note(problem) {
    const state = this.#editing ? this.words.editing : "";
    say(this.parts.note, problem || (this.connection.isReady ? state : this.words.connecting));
  }

  // --- messages ------------------------------------------------------------------------------------------------------

  /** Reads a page of history: the newest messages, or those before `cursor`. */
  async #load(cursor) {
    const before = cursor ? `&cursor=${cursor}` : "";
    const page = await this.#ask("GET", `/api/v1/messages/${this.room.id}?limit=${PAGE}${before}`);
    if (!page && !cursor && this.connection.isReady) setTimeout(() => this.#load(), 2000);
    if (!page) return;
    if (cursor || this.#cursor === undefined) this.#cursor = page.nextCursor;
    page.items.forEach((message) => this.messages.take(message));
    this.parts.older.hidden = !this.#cursor;
    this.#draw(Boolean(cursor));
  }

  #draw(isBefore) {
    this.messages.draw(isBefore);
    this.#see();
  }

  #status({ tempId, status, errorMessage }) {
    this.messages.setStatus(tempId, status, errorMessage);
    this.#draw();
  }

  async #submit(event) {
    event?.preventDefault();
    const text = this.parts.text.value.trimEnd();
    if (!text) return;
    this.#type(false);
    if (this.#editing) {
      const version = { "if-match": String(this.#editing.version) };
      if (await this.#change("PUT", this.#editing, { content: text }, version)) this.#edit(null);
      return;
    }
    this.parts.text.value = "";
    this.parts.log.scrollTop = this.parts.log.scrollHeight;
    this.#send(this.messages.write(text));
  }

  #send({ tempId, content: { text } }) {
    this.messages.setStatus(tempId, "SENDING");
    this.connection.send("/app/chat", { roomId: this.room.id, tempId, content: { text, type: "TEXT" } });
    this.#draw();
  }

  /** Begins to edit a message; null ends it. */
  #edit(message) {
    this.#editing = message;
    this.parts.text.value = message?.content.text ?? "";
    this.#note("");
    this.parts.text.focus();
  }

  async #remove(message) {
    // The button goes: the focus has to be elsewhere.
    if (await this.#change("DELETE", message)) this.parts.text.focus();
  }

  async #change(method, message, body, more) {
    const changed = await this.#ask(method, `/api/v1/messages/${message.id}`, body, more);
    if (!changed) return false;
    this.messages.take(changed);
    this.#draw();
    return true;
  }

  #key(event) {
    // While a syllable of Hangul is composed, Enter ends it.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#submit(event);
    else if (event.key === "Escape" && this.#editing) this.#edit(null);
  }

  /** Marks what came as read if the user looks; else shows how much it is. */
  #see() {
    const { unread } = this.messages;
    this.unread = this.#looks ? 0 : unread.length;
    this.parts.badge.hidden = this.unread === 0;
    say(this.parts.badge, this.words.unread.replace("{}", this.unread));
    const all = sides.reduce((sum, side) => sum + side.unread, 0);
    document.title = document.title.replace(/^(\(\d+\) )?/, all ? `(${all}) ` : "");
    if (!this.#looks || unread.length === 0 || this.#timers.see) return;
    this.#timers.see = setTimeout(() => this.#markRead(), 100);
  }

  #markRead() {
    this.#timers.see = null;
    const last = this.messages.unread.sort((a, b) => b.seq - a.seq)[0];
    if (last) this.connection.send("/app/read", { messageId: last.id });
  }

  // --- typing and presence, which are stored nowhere -----------------------------------------------------------------

  /** Lets the other know that this user types: every two seconds, and until three seconds after the last key. */
  #type(isTyping) {
    clearTimeout(this.#timers.type);
    if (isTyping) this.#timers.type = setTimeout(() => this.#type(false), 3000);
    if (isTyping ? Date.now() - this.#typedAt < 2000 : !this.#typedAt) return;
    this.#typedAt = isTyping ? Date.now() : 0;
    this.connection.send("/app/typing", { roomId: this.room.id, isTyping });
  }

  #peerTypes(userId, isTyping) {
    if (userId !== this.room?.[this.peer]) return;
    clearTimeout(this.#timers.peer);
    // The note of its end may be lost.
    if (isTyping) this.#timers.peer = setTimeout(() => this.#peerTypes(userId, false), 5000);
    say(this.parts.typing, isTyping ? this.words.typing.replace("{}", NAMES[this.peer]) : "");
  }

  #active({ activeUsers, userId, status, active }) {
    const peer = this.room[this.peer];
    if (activeUsers) this.#show(activeUsers.some((user) => user.userId === peer) ? "ONLINE" : "OFFLINE");
    if (userId === peer) this.#show(status === "OFFLINE" ? status : active ? "ONLINE" : "AWAY");
  }

  #show(presence) {
    say(this.parts.presence, this.words[presence].replace("{}", NAMES[this.peer]));
  }

  /** A user looks at its side while the window has the focus and no other side is used. */
  look() {
    const looks = used === this && document.hasFocus() && !document.hidden;
    this.section.classList.toggle("used", used === this);
    if (looks !== this.#looks) this.connection.send("/app/active", { roomId: this.room?.id, active: looks });
    this.#looks = looks;
    this.#see();
  }
}

function use(side) {
  used = side;
  sides.forEach((each) => each.look());
}

const alone = new URLSearchParams(location.search).get("user");
for (const section of document.querySelectorAll("section")) {
  if (Object.hasOwn(NAMES, alone) && alone !== section.dataset.user) section.remove();
  else sides.push(new Side(section));
}
for (const side of sides) {
  for (const name of ["focusin", "pointerdown"]) side.section.addEventListener(name, () => use(side));
}
for (const name of ["focus", "blur"]) addEventListener(name, () => use(used));
document.addEventListener("visibilitychange", () => use(used));
for (const link of document.querySelectorAll("[data-alone]")) link.href = `?user=${link.dataset.alone}${location.hash}`;
use(sides[0]);
